// Values of keys in a Redis or a file, as the pipeline grants them under `grants.keyvalue`.
//
//     import { Bucket } from "fs-data-sink/keyvalue";
//
//     const customers = new Bucket("customers");       // in `open`: what is not granted stops the pipeline there
//     const values = customers.getMany(["7", "8"]);    // Uint8Array, or undefined where there is none
//
// Ask for many keys at once: a question for each row takes a batch's time many times over.

import { getMany } from "wasi:keyvalue/batch@0.2.0-draft";
import { open } from "wasi:keyvalue/store@0.2.0-draft";
import { InvalidConfig, Retryable } from "./index.js";

/** Bytes by keys, which are texts. */
export class Bucket {
  #handle;

  constructor(name) {
    this.name = name;
    this.#handle = this.#ask(() => open(name));
  }

  /** The value of a key. */
  get(key) {
    return this.#ask(() => this.#handle.get(key));
  }

  /** The values of keys, in their order. */
  getMany(keys) {
    return this.#ask(() => getMany(this.#handle, keys)).map((pair) => pair?.[1]);
  }

  /** Sets the value of a key. */
  set(key, value) {
    this.#ask(() => this.#handle.set(key, value));
  }

  /** Takes a key away. */
  delete(key) {
    this.#ask(() => this.#handle.delete(key));
  }

  #ask(question) {
    try {
      return question();
    } catch (error) {
      const fault = error?.payload;
      if (fault?.tag === "other") throw new Retryable(`the bucket ${JSON.stringify(this.name)} cannot be asked: ${fault.val}`);
      if (fault?.tag === undefined) throw error;
      throw new InvalidConfig(`the bucket ${JSON.stringify(this.name)} is not granted, or not for this: add it to grants.keyvalue`);
    }
  }
}
