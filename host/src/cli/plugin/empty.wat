;; The plugin that `plugin bench` compares with: it keeps all rows as they are and reads none. `empty.wasm` is made of this and of
;; wit/ by wit-component; a test of bench.rs holds the two together.
;;
;; All memory below 1024 is zero, and an answer of zeros is a good one of every function: no name, no schema, all rows kept.
(module
  (import "fs-data-sink:plugin/batches@0.1.0" "[resource-drop]batch" (func $drop (param i32)))
  (memory (export "memory") 1)
  (func (export "fs-data-sink:plugin/transform@0.1.0#describe") (result i32) i32.const 0)
  (func (export "fs-data-sink:plugin/transform@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)
  ;; A batch that is lent has to be given back.
  (func (export "fs-data-sink:plugin/transform@0.1.0#process") (param $batch i32) (param i64 i32 i32 i32) (result i32)
    (call $drop (local.get $batch))
    i32.const 0)
  (func (export "fs-data-sink:plugin/transform@0.1.0#flush") (param i32) (result i32) i32.const 0)
  (func (export "fs-data-sink:plugin/transform@0.1.0#close"))
  ;; What it is given all goes to one place, since nobody looks at it.
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $missing i32)
    (local.set $missing
      (i32.sub
        (i32.shr_u (i32.add (local.get $size) (i32.const 66559)) (i32.const 16))
        (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then unreachable))))
    (i32.const 1024)))
