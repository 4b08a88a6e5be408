/** Requests to the session's server, repeated until it answers, and a session's uploads, which send nothing twice. */

const WAITS = [500, 1000, 2000, 4000]; // milliseconds before the next try; the last one again and again
const PATIENCE = 30000; // milliseconds for one try
const LARGEST_CHUNK = 4 * 2 ** 20; // bytes
const LINES_AT_ONCE = 1000;
const PAUSE = 1000; // milliseconds without a new chunk after which events and frames are sent all the same

/** An answer that no repetition would change; its message is the server's sentence. */
export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error ?? `The server answered ${status}.`);
    this.status = status;
    this.answer = answer;
  }
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Server {
  /** `trouble` is called with the sentence to show while requests fail (null: not reachable), and with undefined after. */
  constructor(trouble) {
    this.trouble = trouble;
    this.failing = new Set();
    this.identity = null; // {participant, key}
    this.token = null; // of the session that this page records
  }

  /** The answer, as `read` takes it from the response. Failures of network or machine are repeated until `signal`. */
  async request(method, path, { json, body, type, signal, read = (response) => response.json() } = {}) {
    const headers = {};
    if (this.identity) Object.assign(headers, { "X-Participant": this.identity.participant, "X-Key": this.identity.key });
    if (this.token) headers["X-Session-Token"] = this.token;
    if (json !== undefined) [body, type] = [JSON.stringify(json), "application/json"];
    if (type) headers["Content-Type"] = type;
    const me = Symbol(path);
    try {
      for (let attempt = 0; ; attempt++) {
        let response, answer;
        try {
          response = await fetch(path, { method, headers, body, signal: AbortSignal.timeout(PATIENCE), cache: "no-store" });
          answer = response.ok ? await read(response) : await response.json().catch(() => ({}));
        } catch {
          response = null;
        }
        signal?.throwIfAborted();
        if (response?.ok) return answer;
        if (response && ![502, 503, 504, 507].includes(response.status)) throw new Refused(response.status, answer);
        this.failing.add(me);
        this.trouble(answer?.error ?? null);
        await sleep(WAITS[Math.min(attempt, WAITS.length - 1)]);
        signal?.throwIfAborted();
      }
    } finally {
      if (this.failing.delete(me) && !this.failing.size) this.trouble(undefined);
    }
  }

  get(path, more) {
    return this.request("GET", path, more);
  }

  post(path, json = {}, more) {
    return this.request("POST", path, { json, ...more });
  }
}

/** Recording, events and frames of one session on their way to the server, in order, each from where it stopped. */
export class Uploads {
  constructor(server, number, failed) {
    this.server = server;
    this.path = `/api/sessions/${number}`;
    this.type = "";
    this.video = new Blob(); // not yet confirmed
    this.size = 0; // bytes that are confirmed
    this.lines = { events: { first: 0, entries: [] }, frames: { first: 0, entries: [] } };
    this.abandoning = new AbortController();
    this.closing = false;
    this.wake = () => {};
    this.done = this.#send().catch((error) => {
      if (!this.abandoning.signal.aborted) failed(error);
    });
  }

  chunk(blob) {
    this.video = new Blob([this.video, blob]);
    this.wake();
  }

  event(name, time, more = {}) {
    this.lines.events.entries.push({ name, time, ...more });
  }

  frame(captureTime, presentedFrames) {
    this.lines.frames.entries.push({ captureTime, presentedFrames });
  }

  /** Resolves when the server has confirmed everything. */
  finish() {
    this.closing = true;
    this.wake();
    return this.done;
  }

  abandon() {
    this.abandoning.abort();
  }

  async #send() {
    for (;;) {
      const closing = this.closing;
      await this.#sendVideo();
      await this.#sendLines("events");
      await this.#sendLines("frames");
      this.abandoning.signal.throwIfAborted();
      const left = this.video.size + this.lines.events.entries.length + this.lines.frames.entries.length;
      if (closing && !left) return;
      if (!this.closing) await Promise.race([sleep(PAUSE), new Promise((resolve) => (this.wake = resolve))]);
    }
  }

  async #sendVideo() {
    if (!this.video.size) return;
    const type = this.size ? "" : `&type=${encodeURIComponent(this.type)}`;
    const answer = await this.#post(`recording?offset=${this.size}${type}`, {
      body: this.video.slice(0, LARGEST_CHUNK),
      type: "application/octet-stream",
    }, "size");
    const confirmed = answer.size - this.size;
    if (confirmed < 0 || confirmed > this.video.size) throw new Refused(409, answer);
    this.video = this.video.slice(confirmed);
    this.size = answer.size;
  }

  async #sendLines(name) {
    const lines = this.lines[name];
    if (!lines.entries.length) return;
    const json = { first: lines.first, [name]: lines.entries.slice(0, LINES_AT_ONCE) };
    const answer = await this.#post(name, { json }, "next");
    const confirmed = answer.next - lines.first;
    if (confirmed < 0 || confirmed > lines.entries.length) throw new Refused(409, answer);
    lines.entries.splice(0, confirmed);
    lines.first = answer.next;
  }

  /** A refusal that says how much the server has (`place`) is as good as a confirmation of that much. */
  async #post(what, more, place) {
    try {
      return await this.server.request("POST", `${this.path}/${what}`, { ...more, signal: this.abandoning.signal });
    } catch (error) {
      if (error instanceof Refused && error.status === 409 && Number.isInteger(error.answer[place])) return error.answer;
      throw error;
    }
  }
}
