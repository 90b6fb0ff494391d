// Requests to servers that the pipeline grants under `grants.http`.
//
//     import { get, send } from "fs-data-sink/http";
//
//     const { status, headers, body } = get("https://api.example.com/customers/7");
//     send("POST", "https://api.example.com/names", { "content-type": "application/json" }, new TextEncoder().encode("[7, 8]"));
//
// One request at a time, with bodies in memory; redirects are not followed. What is refused throws `InvalidConfig`; a server that does not
// answer throws `Retryable`: uncaught, the host brings the same batch again.

import { handle } from "wasi:http/outgoing-handler@0.2.12";
import { Fields, IncomingBody, OutgoingBody, OutgoingRequest, httpErrorCode } from "wasi:http/types@0.2.12";
import { InvalidConfig, Retryable } from "./index.js";

// Bytes that are read at once, and that the host takes at once.
const READ = 65536n;
const WRITE = 4096;
const METHODS = ["get", "head", "post", "put", "delete", "options", "patch"];
const REFUSALS = new Set([
  "HTTP-request-denied", "destination-IP-prohibited", "connection-limit-reached", "HTTP-request-body-size", "HTTP-response-body-size",
  "HTTP-response-header-section-size", "invalid-syntax", "forbidden", "immutable",
]);

/** Asks for something. */
export const get = (url, headers = {}) => send("GET", url, headers);

/** Sends a request and reads the whole response: its status, its fields as texts by names in small letters, its body as Uint8Array. */
export function send(method, url, headers = {}, body = new Uint8Array()) {
  const parts = /^(https?):\/\/([^/?#]+)([^#]*)/.exec(url);
  if (!parts) throw new InvalidConfig(`${JSON.stringify(url)} is not an address such as https://api.example.com/path`);
  const [, scheme, authority, path] = parts;
  try {
    const encoder = new TextEncoder();
    const request = new OutgoingRequest(Fields.fromList(Object.entries(headers).map(([name, value]) => [name, encoder.encode(value)])));
    const known = METHODS.includes(method.toLowerCase());
    request.setMethod(known ? { tag: method.toLowerCase() } : { tag: "other", val: method });
    request.setScheme({ tag: scheme.toUpperCase() });
    request.setAuthority(authority);
    request.setPathWithQuery(path.startsWith("/") ? path : `/${path}`);
    const outgoing = request.body();
    const future = handle(request, undefined);
    write(outgoing, body);
    let answer = future.get();
    while (answer === undefined) {
      future.subscribe().block();
      answer = future.get();
    }
    return read(value(value(answer)));
  } catch (error) {
    throw fault(url, error);
  }
}

/** What is in a result, where it is no error. */
function value(result) {
  if (result.tag === "err") throw Object.assign(new Error(), { payload: result.val });
  return result.val;
}

/** Writes a body to its end. A host that refuses the request closes the stream; why, the response says. */
function write(outgoing, body) {
  try {
    const stream = outgoing.write();
    for (let at = 0; at < body.length; at += WRITE) stream.blockingWriteAndFlush(body.subarray(at, at + WRITE));
    stream[Symbol.dispose]?.();
    OutgoingBody.finish(outgoing, undefined);
  } catch (error) {
    if (error?.payload === undefined) throw error;
  }
}

/** Reads a response to its end. */
function read(response) {
  const decoder = new TextDecoder();
  const entries = response.headers().entries();
  const headers = Object.fromEntries(entries.map(([name, text]) => [name.toLowerCase(), decoder.decode(text)]));
  const incoming = response.consume();
  const stream = incoming.stream();
  const parts = [];
  try {
    for (;;) parts.push(stream.blockingRead(READ));
  } catch (error) {
    if (error?.payload?.tag !== "closed") throw error;
  }
  stream[Symbol.dispose]?.();
  IncomingBody.finish(incoming);
  const body = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (body.set(part, at), at + part.length), 0);
  return { status: response.status(), headers, body };
}

/** An error of the interface as an exception of this SDK. */
function fault(url, error) {
  let code = error?.payload;
  if (code?.tag === "last-operation-failed") code = httpErrorCode(code.val) ?? code;
  if (code?.tag === undefined) return error;
  const words = typeof code.val === "string" ? `${code.tag}: ${code.val}` : code.tag;
  if (REFUSALS.has(code.tag)) return new InvalidConfig(`${url} is refused: ${words}`);
  return new Retryable(`${url} does not answer: ${words}`);
}
