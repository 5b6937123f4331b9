// How the API is asked. The token, if one is needed, is in this module's memory only: another tab
// does not have it, and loading the page again forgets it.

const PATIENCE_MS = 8000;
export const LONG_MS = 150_000; // of what ends with a reload: longer than the gateway waits for one
let token = "";
let on_wanted = () => {};

export class Refused extends Error {
  constructor(status, slug, message) {
    super(message);
    Object.assign(this, { status, slug });
  }
}

export function use_token(text) {
  token = text;
}

// `wanted(is_refused)` is called when the gateway wants a token, or does not know the one it got. Not
// for a request that was sent before the token was typed in that is used now.
export function on_token_wanted(wanted) {
  on_wanted = wanted;
}

function fields_of(method, more = {}) {
  const fields = { ...more };
  if (token) fields.Authorization = `Bearer ${token}`;
  if (method !== "GET") fields["X-Fastticket-Admin"] = "1";
  return fields;
}

// `asked`: what `fetch` has just returned
async function checked(asked) {
  const sent = token; // another may have been typed in before the answer comes
  const response = await asked;
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  if (response.status === 401 && sent === token) on_wanted(sent !== "");
  throw new Refused(response.status, said.error ?? "", said.message ?? `status ${response.status}`);
}

// The answer's JSON. `body`: an object, of a change that takes one. Refused; TypeError: the gateway
// cannot be reached.
export async function ask(method, path, { body, patience_ms = PATIENCE_MS } = {}) {
  const headers = fields_of(method, body ? { "Content-Type": "application/json" } : {});
  const options = { method, headers, signal: AbortSignal.timeout(patience_ms), cache: "no-store", credentials: "omit" };
  if (body) options.body = JSON.stringify(body);
  return (await checked(fetch(`/v1/${path}`, options))).json();
}

// Server-sent events, as they come; ends with the stream. `last_id`: after which event; "": from now on.
export async function* stream(path, last_id, signal) {
  const headers = fields_of("GET", last_id ? { "Last-Event-ID": last_id } : {});
  const options = { headers, signal, cache: "no-store", credentials: "omit" };
  const response = await checked(fetch(`/v1/${path}`, options));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const pieces = (rest + value).split("\n\n");
    rest = pieces.pop();
    for (const piece of pieces) {
      const found = { id: "", event: "", data: "" };
      for (const line of piece.split("\n")) {
        const at = line.indexOf(": ");
        if (at > 0) found[line.slice(0, at)] = line.slice(at + 2);
      }
      yield found;
    }
  }
}

// What an error says to an operator, as a part of a sentence.
export function reason_of(error) {
  if (error instanceof Refused) return error.message.replace(/[.\s]+$/, "");
  return error.name === "TimeoutError" ? "the gateway does not answer" : "the gateway cannot be reached";
}
