//! Plugins that do their worst, and plugins that do their work: what comes out of the plugin room for each.
//!
//! The components are `hostile.wasm` and `hostile_lookup.wasm`, built by `make plugins`, and ones made here from WebAssembly text for the crimes
//! that no compiler produces. The process that runs these tests is the host: that they end at all is half the proof.
//!
//! What a host has to survive, and where it is shown. Tests without a file are here; `unit` is beside the code.
//!
//! | | crime | test |
//! |---|---|---|
//! | | **Time** | |
//! | 1 | a loop in `describe`, `open`, `start` | `time_and_memory::a_loop_at_the_start_stops_the_pipeline_in_words` |
//! | | in `process`, `flush`, `close` | `time_and_memory::{a_loop_in_process_costs_…, loops_in_flush_and_close_end_too}` |
//! | | in `snapshot`, `restore` | `state::{whatever_goes_wrong_with_a_snapshot_…, a_plugin_that_does_not_take_its_state_…}` |
//! | 2 | a loop in `cabi_realloc`, in post-return | `time_and_memory::a_loop_at_the_start_stops_the_pipeline_in_words` |
//! | 3 | a million host calls in one call | `limits::{a_million_calls_of_the_host_end_the_call, calls_of_wasi_are_counted_as_well}` |
//! | 4 | `memory.fill` and `memory.copy` for ever | `time_and_memory::{a_loop_at_the_start_…, bulk_operations_and_sleeps_…}` |
//! | 5 | a host call that blocks: a sleep | `time_and_memory::bulk_operations_and_sleeps_end_at_the_deadline_as_well`; HTTP: `outside::a_server_that_never_answers_costs_a_request_and_not_the_call`; DNS: unit `plugin::grants::http` |
//! | 6 | a loop beside a neighbour and a timer | `time_and_memory::{a_plugin_that_computes_gives_way_…, a_neighbour_of_a_looping_plugin_goes_on}`, `neighbour`; beside a heartbeat, end to end: `hostile` |
//! | 7 | a compile bomb | `compile`; beside others, and again: unit `plugin::compile` |
//! | | **Memory** | |
//! | 8 | growing in a loop | `time_and_memory::memory_without_end_is_refused` |
//! | 9 | many memories | `memory::many_memories_share_the_budget` |
//! | 10 | tables | `memory::tables_share_a_budget_too` |
//! | 11 | a minimum above the cap | `time_and_memory::memory_above_the_limit_at_the_start_is_refused` |
//! | 12 | deep recursion | `traps::every_way_to_trap_costs_the_batch_only` |
//! | 13 | lists of 4 GiB, past the memory, misaligned | `memory::answers_that_point_past_the_memory_or_beside_a_word_end_the_call` |
//! | 14 | leaked handles | `memory::handles_that_are_never_dropped_end_the_call` |
//! | 15 | a huge log line, error, many and odd metric names | `capabilities::{talking_without_end_…, a_log_line_larger_than_…}`, `limits::an_error_of_100_mb_ends_the_call`; unit: `voice` |
//! | 16 | 4 GiB of random bytes | `memory::random_bytes_are_given_in_small_portions_only`; HTTP fields: `outside::a_request_with_a_bomb_of_fields_traps_at_a_limit` |
//! | 17 | standard output for ever | `capabilities::talking_without_end_does_no_harm`; unit: `voice` |
//! | | **Traps** | |
//! | 18 | every way to trap | `traps::{every_way_to_trap_…, traps_that_compilers_check_for_…}` |
//! | 19 | a trap, then a call | `traps::a_batch_that_always_traps_is_refused_once_and_the_next_one_passes` |
//! | 20 | a trap on every batch | `circuit::{the_batch_at_which_the_circuit_opens_is_kept_…, a_good_batch_between_bad_ones_…}` |
//! | 21 | a trap in `flush` | `traps::rows_that_a_lost_instance_held_are_read_again` |
//! | 22 | a trap on the first try only | `traps::a_trap_on_the_first_try_is_gone_on_the_second` |
//! | 23 | a dropped call | `time_and_memory::a_dropped_call_leaves_a_chain_that_works`, `circuit::a_call_that_is_dropped_…` |
//! | | **Capabilities** | |
//! | 24 | environment, arguments, input | `capabilities::there_is_nothing_to_see` |
//! | 25 | files | `capabilities::there_is_nothing_to_see`: there is no folder to begin with; granted ones: `folders`; end to end: `escapes` |
//! | 26 | sockets | `capabilities::there_is_nothing_to_see` |
//! | 27 | HTTP, all ways around a grant | `outside::{a_granted_server_answers_…, limits_of_requests_…}`; unit: `plugin::grants::http`; end to end, with DNS: `escapes` |
//! | 28 | key-value | `outside::a_table_is_looked_up_…`, `redis_bucket`; end to end: `escapes`, `redis::buckets` |
//! | 29 | an import that is not granted | `loading::an_import_that_is_not_granted_is_refused_by_name` |
//! | 30 | clocks of a deterministic plugin | `outside::a_plugin_that_says_that_it_is_deterministic_…` |
//! | | **Data** | |
//! | 31 | bitmaps | `answers::broken_selections_and_rejections_are_refused` |
//! | 32 | `extend` with other rows, types, names | `answers::{broken_streams_are_refused, broken_raw_columns_are_refused}`, `data::two_columns_of_one_name_…` |
//! | 33 | rejections | `answers::{broken_selections_…, rejected_rows_leave_…}`, `limits::rejections_and_the_rows_in_them_are_bounded` |
//! | 34 | another schema, drift | `answers::replace_must_keep_to_the_declared_schema`, `data::a_second_batch_in_another_schema_…` |
//! | 35 | `flush` that extends | `answers::flush_may_only_replace` |
//! | 36 | more rows than allowed | `limits::answers_are_bounded_in_rows_bytes_and_what_dictionaries_stand_for` |
//! | 37 | broken Arrow streams | `answers::broken_streams_are_refused`, `data::schemas_beyond_all_measure_…`; unit: `ipc`; `fuzz` |
//! | 38 | bytes of other rows in what goes in | unit: `plugin::{hygiene, batches}` |
//! | 39 | values at the edges of their types | `data::{values_at_the_edges_…, a_decimal_beyond_…}` |
//! | | **Supply chain** | |
//! | 40–43 | cut, wrong kind, digest, cache | `loading`; a registry that answers something else: unit `plugin::fetch` |
//! | 44 | another version, more functions, one more case of an enum | `versions` |
//! | 45 | a file that changes | end to end: `reload` |
//! | | **Neighbours** | |
//! | 46 | two tenants, one plugin | `tenants::a_tenant_with_one_place_…`, `redis_bucket`, `memory` |
//! | 48 | a tenant with all it may have | `neighbour::loops_of_one_tenant_leave_another_its_processors`; unit: `plugin::turns` |
//! | 47 | memory of another instance | `memory::memory_that_another_instance_has_left_is_zero` |
//! | 49 | no place left | `limits::{an_instance_too_many_…, more_chains_than_…}`; unit: `plugin::places` |
//! | | all of them in one process | `neighbour::a_healthy_plugin_beside_all_crimes_loses_no_row_and_little_time` |

#[cfg(test)]
mod answers;
#[cfg(test)]
mod capabilities;
#[cfg(test)]
mod circuit;
#[cfg(test)]
mod compile;
#[cfg(test)]
mod data;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod heard;
#[cfg(test)]
mod loading;
#[cfg(test)]
mod made;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod neighbour;
#[cfg(test)]
mod state;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod redis_bucket;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod time_and_memory;
#[cfg(test)]
mod traps;
#[cfg(test)]
mod versions;
