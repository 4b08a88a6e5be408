/** The camera: its pictures' times on the page's clock, and the recording of a session. */

import { sleep } from "./server.js";

// The first that the browser has: at full load these keep the camera's 30 pictures a second longest.
const TYPES = ["video/x-matroska;codecs=avc1", "video/webm;codecs=vp9", "video/mp4;codecs=avc1", "video/webm"];
const BITS_PER_SECOND = 5e6;
const CHUNK = 1000; // milliseconds
const SPEED_OVER = 2000; // milliseconds over which the camera's speed is measured
const LAST_CHUNK = 3000; // milliseconds to wait for the last chunk, which comes at once
const MARGIN = 300; // milliseconds of logged pictures before the recording begins, and of recording before the first page

export function recordingType() {
  return TYPES.find((type) => MediaRecorder.isTypeSupported(type));
}

/** Why this browser cannot take part: "unfit_small", "unfit_address", "unfit_browser", or undefined. */
export function unfit() {
  const small = Math.min(screen.width, screen.height) < 600 || screen.width < 1000;
  if (small || !matchMedia("(any-pointer: fine)").matches) return "unfit_small";
  if (!window.isSecureContext) return "unfit_address";
  const able = navigator.mediaDevices?.getUserMedia && "requestVideoFrameCallback" in HTMLVideoElement.prototype;
  return able && window.MediaRecorder && recordingType() ? undefined : "unfit_browser";
}

export class Camera {
  /** Raises the browser's DOMException where the camera is refused, missing or busy. */
  static async open(deviceId) {
    const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
    if (deviceId) video.deviceId = { exact: deviceId };
    const camera = new Camera(await navigator.mediaDevices.getUserMedia({ video, audio: false }));
    await camera.video.play();
    return camera;
  }

  constructor(stream) {
    this.stream = stream;
    this.track = stream.getVideoTracks()[0];
    this.label = this.track.label;
    this.settings = this.track.getSettings();
    this.times = []; // [captureTime or time of the callback, presentedFrames] of the last seconds
    this.onframe = () => {};
    this.onevent = () => {};
    this.onlost = () => {};
    for (const name of ["mute", "unmute", "ended"]) {
      const event = { mute: "track_muted", unmute: "track_unmuted", ended: "track_ended" }[name];
      this.track.addEventListener(name, () => this.onevent(event));
    }
    this.track.addEventListener("ended", () => this.onlost());
    // Never in the page: participants need not see themselves, and the callback comes all the same.
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
    const logged = (now, { captureTime, presentedFrames }) => {
      this.times.push([captureTime ?? now, presentedFrames]);
      while (this.times[0][0] < this.times.at(-1)[0] - SPEED_OVER) this.times.shift();
      this.onframe(captureTime ?? null, presentedFrames);
      this.video.requestVideoFrameCallback(logged);
    };
    this.video.requestVideoFrameCallback(logged);
  }

  /** Pictures per second, once there have been two seconds of them. */
  get speed() {
    const [first, last] = [this.times[0], this.times.at(-1)];
    if (!first || last[0] - first[0] < 0.9 * SPEED_OVER) return undefined;
    return (1000 * (last[1] - first[1])) / (last[0] - first[0]);
  }

  /** The present picture, JPEG. */
  async picture() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.video.videoWidth, this.video.videoHeight];
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  }

  close() {
    this.onlost = this.onframe = this.onevent = () => {};
    this.stream.getTracks().forEach((track) => track.stop());
    this.video.srcObject = null;
  }
}

/** One recording of the whole session, whose chunks, log of pictures and events go to the uploads. */
export class Recording {
  constructor(camera, uploads) {
    [this.camera, this.uploads] = [camera, uploads];
    this.listening = new AbortController();
  }

  async start() {
    const { camera, uploads } = this;
    camera.onframe = (captureTime, presentedFrames) => uploads.frame(captureTime, presentedFrames);
    camera.onevent = (name) => uploads.event(name, performance.now());
    this.#listen();
    await sleep(MARGIN);
    const mimeType = recordingType();
    const options = { mimeType, videoBitsPerSecond: BITS_PER_SECOND };
    if (mimeType.startsWith("video/mp4")) options.videoKeyFrameIntervalDuration = CHUNK; // chunks end at key frames
    this.recorder = new MediaRecorder(camera.stream, options);
    this.recorder.ondataavailable = ({ data }) => uploads.chunk(data);
    const first = (name) => new Promise((resolve) => this.recorder.addEventListener(name, resolve, { once: true }));
    const started = first("start");
    this.ended = first("stop"); // also when the camera is lost
    uploads.type = mimeType;
    const time = performance.now();
    this.recorder.start(CHUNK);
    uploads.event("recorder_starting", time, { type: mimeType });
    await started;
    uploads.event("recorder_started", performance.now());
    await sleep(MARGIN);
  }

  async stop() {
    this.listening.abort();
    if (this.recorder && !this.stopped) {
      this.stopped = true;
      if (this.recorder.state !== "inactive") this.recorder.stop();
      await Promise.race([this.ended, sleep(LAST_CHUNK)]);
      this.uploads.event("recorder_stopped", performance.now());
    }
    this.camera.close();
  }

  #listen() {
    const log = (name, more) => this.uploads.event(name, performance.now(), more);
    const on = (target, name, handler) => target.addEventListener(name, handler, { signal: this.listening.signal });
    const size = () => log("resize", { width: innerWidth, height: innerHeight, ratio: devicePixelRatio });
    size();
    on(window, "resize", size);
    on(window, "blur", () => log("blur"));
    on(window, "focus", () => log("focus"));
    on(document, "visibilitychange", () => log(document.visibilityState === "hidden" ? "hidden" : "visible"));
  }
}
