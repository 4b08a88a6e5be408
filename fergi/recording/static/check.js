/** The camera page: which camera, and whether its picture can be used (Sections 3.2.2 and A.1). */

import { Camera } from "./camera.js";
import { make, say, show, showSign } from "./pages.js";
import { sleep } from "./server.js";

const LEAST_SPEED = 25; // pictures per second
const CHECK_EVERY = 1000; // milliseconds
const VIRTUAL = /virtual|\bobs\b|manycam|snap camera|xsplit|mmhmm|v4l2loopback|dummy video/i;

let deviceId; // of the camera that was chosen last

/** Resolves with a camera that has passed every check. `lost`: the one before stopped, which is said to begin with. */
export async function cameraPage(server, lost = false) {
  const { page } = await show("camera");
  const part = (selector) => page.querySelector(selector);
  const [open, next, choice] = [part("[name=open]"), part("[name=next]"), part("select")];
  let camera = null;
  let checks = 0;

  const tell = (title, more = "") => {
    if (part("#verdict").textContent === title + more) return;
    part("#verdict").replaceChildren(...(title ? [make("strong", { textContent: title }), more] : []));
  };
  const turnOff = (...told) => {
    camera?.close();
    camera = null;
    showSign();
    for (const hidden of ["video", ".checks"]) part(hidden).hidden = true;
    next.hidden = true;
    open.hidden = false;
    part(".preview p").hidden = false;
    tell(...told);
  };
  const start = async () => {
    turnOff("");
    open.disabled = true;
    try {
      camera = await Camera.open(deviceId);
    } catch (error) {
      deviceId = undefined;
      const kind = { NotAllowedError: "denied", NotFoundError: "none", OverconstrainedError: "none" }[error.name] ?? "busy";
      turnOff(`${say(`${kind}_title`)}. `, say(`${kind}_text`));
      open.textContent = say("try_again");
      return open.focus();
    } finally {
      open.disabled = false;
    }
    checks = 0;
    camera.onlost = () => turnOff(`${say("lost_title")}. `, say("lost_before"));
    part("video").srcObject = camera.stream;
    const devices = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    choice.replaceChildren(...devices.map(({ deviceId: value, label }, place) =>
      make("option", { value, textContent: label || say("camera_unnamed", { number: place + 1 }) })));
    choice.value = deviceId = camera.settings.deviceId;
    part(".field").hidden = devices.length < 2;
    part("video").hidden = part(".checks").hidden = next.hidden = false;
    part(".preview p").hidden = open.hidden = next.disabled = true;
    for (const name of ["face", "still", "light", "speed"]) mark(page, name, "wait", say("check_waiting"));
    const virtual = VIRTUAL.test(camera.label);
    mark(page, "name", virtual ? "note" : "good", say(virtual ? "check_name_no" : "check_name", { name: camera.label }));
    showSign("camera_on");
    part(".checks").focus();
  };
  open.onclick = start;
  choice.onchange = () => start((deviceId = choice.value));
  if (lost) tell(`${say("lost_title")}. `, say("lost_before"));

  let chosen = false;
  next.onclick = () => (chosen = Boolean(camera));
  while (!chosen) {
    const checked = camera;
    if (!checked?.video.videoWidth) {
      await sleep(100);
      continue;
    }
    const body = await checked.picture();
    const answer = await server.request("POST", "/api/camera-check", { body, type: "image/jpeg" });
    if (checked !== camera) continue;
    checks += 1;
    const good = judge(page, answer, camera.speed, checks);
    next.disabled = !good;
    tell(good === undefined ? "" : say(good ? "check_good" : "check_bad"));
    for (let waited = 0; waited < CHECK_EVERY && !chosen; waited += 100) await sleep(100);
  }
  camera.onlost = () => {};
  return camera;
}

/** Show what the checks found; true if all is well, undefined while the speed is not known. */
function judge(page, answer, speed, checks) {
  const problems = new Set(answer.problems);
  const light = problems.has("too_bright") ? "check_bright_no" : "check_light_no";
  const dark = problems.has("too_dark") || problems.has("too_bright");
  const unsure = answer.face && problems.has("unsure_face") ? "check_face_unsure" : undefined;
  const face = unsure ?? (answer.face && !problems.has("blank") ? "check_face" : "check_face_no");
  mark(page, "face", face === "check_face" ? "good" : "bad", say(face));
  mark(page, "light", dark ? "bad" : "good", say(dark ? light : "check_light"));
  if (checks > 1) mark(page, "still", answer.still ? "bad" : "good", say(answer.still ? "check_still_no" : "check_still"));
  if (speed === undefined || checks < 2) return undefined;
  const fast = speed >= LEAST_SPEED;
  const told = say(fast ? "check_speed" : "check_speed_no", { measured: Math.round(speed), least: LEAST_SPEED });
  mark(page, "speed", fast ? "good" : "bad", told);
  return fast && !problems.size;
}

function mark(page, check, state, text) {
  const item = page.querySelector(`[data-check=${check}]`);
  if (item.dataset.state === state && item.lastChild?.textContent === text) return;
  item.dataset.state = state;
  const spoken = state === "wait" ? "" : say(`sr_${state}`);
  item.replaceChildren(make("span", { className: "unseen", textContent: spoken && `${spoken}: ` }), text);
}
