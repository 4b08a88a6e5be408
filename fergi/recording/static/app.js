/** A participant's way through the study: consent, camera, prompt, images with surveys, ranking, and the next session. */

import { rankingPage, surveyPage } from "./answers.js";
import { Recording, unfit } from "./camera.js";
import { cameraPage } from "./check.js";
import { ask, choose, complain, endQuestion, loadTexts, make, message, onStop } from "./pages.js";
import { replaceTexts, say, show, showSign, showTrouble } from "./pages.js";
import { promptPage } from "./prompt.js";
import { Refused, Server, sleep, Uploads } from "./server.js";

const REMEMBERED = "fergi-participant"; // in this browser's local storage: name and key

const server = new Server(showTrouble);
let study;

async function main() {
  await loadTexts();
  const reason = unfit();
  if (reason) return message(say("unfit_title"), say(reason));
  study = await server.get("/api/study");
  replaceTexts(study.texts);
  document.documentElement.lang = say("language");
  document.getElementById("study").textContent = study.title;
  let me = (await comeBack()) ?? (await consent());
  while (me) me = await oneSession(me.next);
}

// Who takes part ----------------------------------------------------------------------------------------------------

async function consent() {
  const { page } = await show("consent", (page) => {
    page.querySelector(".letter").append(...study.consent.paragraphs.map((textContent) => make("p", { textContent })));
    const version = say("consent_version", { version: study.consent.version });
    page.querySelector("#contact").textContent = `${say("consent_contact", { contact: study.contact })} · ${version}`;
  });
  const agreed = await new Promise((resolve) => {
    page.elements.decline.onclick = () => resolve(false);
    page.onsubmit = (event) => {
      event.preventDefault();
      const { recording, sharing } = page.elements;
      if (!recording.checked) return complain(page, say("consent_recording_missing"), recording);
      if (!sharing.value) return complain(page, say("consent_sharing_missing"), sharing[0]);
      resolve(true);
    };
  });
  if (!agreed) return void (await message(say("declined_title"), say("declined_text")));
  const sharing = page.elements.sharing.value === "yes";
  const asked = { recording: true, sharing, consent_version: study.consent.version };
  server.identity = await server.post("/api/participants", asked);
  localStorage.setItem(REMEMBERED, JSON.stringify(server.identity));
  return server.get("/api/me");
}

/** Someone whom this browser remembers: where they are, or null if it is somebody else or nobody. */
async function comeBack() {
  server.identity = JSON.parse(localStorage.getItem(REMEMBERED));
  if (!server.identity) return null;
  let me;
  try {
    me = await server.get("/api/me");
  } catch (error) {
    if (!(error instanceof Refused) || ![401, 404].includes(error.status)) throw error;
    forget(); // a participant who has been deleted
    return null;
  }
  const { page } = await show("back", (page) => {
    page.querySelector(".lead").textContent = say("back_who", { participant: me.participant });
    const told = me.sessions.map(({ number, state }) => say("back_session", { number, state: say(`state_${state}`) }));
    page.querySelector("ul").append(...told.map((textContent) => make("li", { textContent })));
    page.querySelector("h2").hidden = !told.length;
    const broken = me.sessions.findLast(({ state }) => state === "interrupted");
    const next = me.next ? say("back_next", { number: me.next.number }) : say("back_none");
    page.querySelector("#back-next").textContent = broken ? say("back_interrupted", broken) : next;
  });
  const answer = await goOnOr(page, me, { other: say("back_other") });
  if (answer === "other") forget();
  return answer === "go" ? me : null;
}

function forget() {
  localStorage.removeItem(REMEMBERED);
  server.identity = null;
}

/** The button pressed on a page: go, one of `others`, or withdraw; who wants that is asked once more, and all ends. */
async function goOnOr(page, me, others) {
  const again = me.next && me.sessions.some(({ number }) => number === me.next.number);
  const go = me.next ? { go: say(again ? "go_again" : "done_next", me.next) } : {};
  const buttons = { ...go, ...others, withdraw: say("withdraw") };
  for (;;) {
    const answer = await choose(page.querySelector(".buttons"), buttons);
    if (answer !== "withdraw") return answer;
    const asked = { no: say("withdraw_no"), delete: say("withdraw_yes") };
    if ((await ask(say("withdraw_title"), say("withdraw_text"), asked)) === "no") continue;
    await once(server.request("DELETE", "/api/me"));
    forget();
    await message(say("withdrawn_title"), say("withdrawn_text"), {});
  }
}

// A session ---------------------------------------------------------------------------------------------------------

/** What ends a session early: the participant's wish, a lost camera, or a refusal by the server. */
class Interruption extends Error {
  constructor(why, error) {
    super(why);
    [this.why, this.error] = [why, error];
  }
}

/** One session with its end page; resolves with where the participant is now, or null if they leave. */
async function oneSession(next, lost) {
  const camera = await cameraPage(server, lost);
  let interrupt;
  const interrupted = new Promise((_, reject) => (interrupt = (...why) => reject(new Interruption(...why))));
  interrupted.catch(() => {});
  const until = (promise) => Promise.race([promise, interrupted]);
  const session = { ...next, camera, until, recording: null, uploads: null };
  camera.onlost = () => interrupt("lost");
  try {
    Object.assign(session, await until(server.post("/api/sessions", { kind: next.kind })));
    server.token = session.token;
    session.uploads = new Uploads(server, session.number, (error) => interrupt("broken", error));
    onStop(() => askToStop(session, interrupt));
    const evidence = await through(session);
    return endPage(session.number, evidence);
  } catch (error) {
    if (!(error instanceof Interruption)) throw error;
    return await endEarly(session, error, next);
  } finally {
    camera.close();
    session.uploads?.abandon();
    onStop();
    showSign();
    removeEventListener("beforeunload", stay);
    server.token = null;
  }
}

function stay(event) {
  event.preventDefault();
}

async function through(session) {
  const { number, camera, until, uploads } = session;
  const path = `/api/sessions/${number}`;
  const wanted = await until(promptPage(server, session, study));
  const { prompt } = wanted;
  const n = await until(waitForImages(session, wanted));
  const images = await until(Promise.all(Array.from({ length: n }, (_, place) => decoded(`${path}/images/${place + 1}`))));

  await until(readyPage(n));
  session.recording = new Recording(camera, uploads);
  await until(session.recording.start());
  showSign("recording");
  addEventListener("beforeunload", stay);
  const painted = logPainting(uploads);
  for (let image = 1; image <= n; image++) await present(session, prompt, images[image - 1], image, n);
  painted.disconnect();
  const { start, time, ranked } = await until(rankingPage(prompt, images));
  uploads.event("ranking_shown", time, { order: start });
  const ranking = await until(ranked);
  uploads.event("ranking_done", performance.now());

  onStop();
  endQuestion();
  camera.onlost = () => {};
  message(say("saving_title"), say("saving_text"));
  await session.recording.stop();
  showSign();
  await until(uploads.finish());
  await until(server.request("PUT", `${path}/ranking`, { json: { ranking, start } }));
  const about = { camera: { label: camera.label, settings: camera.settings }, browser: navigator.userAgent };
  return (await until(server.post(`${path}/finish`, about))).evidence;
}

async function waitForImages({ number, until }, wanted) {
  const path = `/api/sessions/${number}/images`;
  const { page } = await until(show("waiting", (page) => (page.querySelector("blockquote").textContent = wanted.prompt)));
  for (;;) {
    const { state, done, total, note } = await until(server.get(path));
    Object.assign(page.querySelector("progress"), { max: total, value: done });
    const failed = state === "failed" && [say("waiting_failed"), note].filter(Boolean).join(" ");
    const told = failed || say("waiting_progress", { done, total });
    if (page.querySelector("#made").textContent !== told) page.querySelector("#made").textContent = told;
    if (state === "ready") return total;
    if (failed) {
      await until(choose(page.querySelector(".buttons"), { again: say("try_again") }));
      page.querySelector(".buttons").replaceChildren();
      await until(server.post(path, wanted));
    } else await until(sleep(500));
  }
}

/** An image that can be painted at once. */
async function decoded(path) {
  const image = new Image();
  image.src = URL.createObjectURL(await server.get(path, { read: (response) => response.blob() }));
  await image.decode();
  return image;
}

async function readyPage(n) {
  const { page } = await show("ready", (page) => {
    page.querySelector(".lead").textContent = say("ready_lead", { n });
    const steps = [say("ready_baseline", { seconds: study.seconds.baseline })];
    steps.push(say("ready_image", { seconds: study.seconds.image }), say("ready_survey"));
    page.querySelector("ol").append(...steps.map((textContent) => make("li", { textContent })));
  });
  await new Promise((resolve) => (page.querySelector("button").onclick = resolve));
}

/** Baseline, image and survey (Section 3.2.3). */
async function present({ number, until, uploads }, prompt, picture, image, n) {
  const stage = (title, content) => (page) => {
    page.querySelector("h1").textContent = title;
    page.querySelector(".prompt").textContent = prompt;
    page.querySelector(".show").append(content);
  };
  const status = make("p", { className: "status", textContent: say("baseline_status") });
  const baseline = await until(show("shown", stage(say("baseline_title", { image, n }), status)));
  uploads.event("baseline_shown", baseline.time, { image });

  picture.alt = say("image_alt", { image });
  picture.setAttribute("elementtiming", image);
  const shownFrom = baseline.time + 1000 * study.seconds.baseline;
  const shown = await until(show("shown", stage(say("image_title", { image, n }), picture), shownFrom));
  uploads.event("image_shown", shown.time, { image });

  const shownTo = shown.time + 1000 * study.seconds.image;
  const survey = await until(surveyPage(study, prompt, picture, image, n, shownTo));
  uploads.event("image_hidden", survey.time, { image });
  uploads.event("survey_shown", survey.time, { image, ...survey.order });
  const answers = await until(survey.answered);
  uploads.event("survey_answered", performance.now(), { image });
  await until(server.request("PUT", `/api/sessions/${number}/survey/${image}`, { json: answers }));
}

/** Log when each image was painted, where the browser tells it. */
function logPainting(uploads) {
  const observer = new PerformanceObserver((list) => {
    for (const { identifier, renderTime, startTime } of list.getEntries()) {
      uploads.event("image_rendered", performance.now(), { image: Number(identifier), renderTime: renderTime || startTime });
    }
  });
  if (PerformanceObserver.supportedEntryTypes.includes("element")) observer.observe({ type: "element" });
  return observer;
}

// Ends --------------------------------------------------------------------------------------------------------------

async function askToStop({ recording, uploads }, interrupt) {
  uploads.event("stop_asked", performance.now());
  const buttons = { on: say("stop_go_on") };
  if (recording) Object.assign(buttons, { keep: say("stop_keep"), delete: say("stop_delete") });
  else Object.assign(buttons, { delete: say("stop_yes") });
  const answer = await ask(say("stop_title"), say(recording ? "stop_text" : "stop_text_before"), buttons);
  if (answer === "on") return uploads.event("stop_dismissed", performance.now());
  interrupt(answer);
}

async function endEarly({ number, camera, recording, uploads }, { why, error }, next) {
  onStop();
  endQuestion();
  await recording?.stop();
  camera.close();
  showSign();
  removeEventListener("beforeunload", stay);
  if (why === "broken") throw error;
  if (why === "lost" && !recording) {
    uploads?.abandon();
    if (number) await once(server.post(`/api/sessions/${number}/stop`, { keep: false }));
    return oneSession(next, true);
  }
  if (why === "lost") {
    why = await message(say("lost_title"), say("lost_text"), { keep: say("lost_keep"), delete: say("lost_delete") });
  }
  if (why === "keep") {
    message(say("saving_title"), say("saving_text"));
    await uploads.finish();
  } else uploads.abandon();
  await once(server.post(`/api/sessions/${number}/stop`, { keep: why === "keep" }));
  const me = await server.get("/api/me");
  const text = recording ? say(why === "keep" ? "stopped_kept" : "stopped_deleted") : say("stopped_before");
  const { page } = await show("message", (page) => {
    page.querySelector("h1").textContent = say("stopped_title");
    page.querySelector(".lead").textContent = text;
  });
  return goOnOrLeave(page, me);
}

async function endPage(number, evidence) {
  const me = await server.get("/api/me");
  const { page } = await show("done", (page) => {
    page.querySelector("h1").textContent = say("done_title", { number });
    page.querySelector("ul").append(...inWords(evidence).map((textContent) => make("li", { textContent })));
    page.querySelector("#after").textContent = say(me.next ? "done_pause" : "done_all");
  });
  return goOnOrLeave(page, me);
}

async function goOnOrLeave(page, me) {
  const answer = await goOnOr(page, me, { forget: say("done_forget") });
  if (answer === "go") return me;
  forget();
  return void (await message(say("forgotten_title"), say("forgotten_text")));
}

/** What the server measured of the recording. */
function inWords(evidence) {
  if ("problem" in evidence) return [say("evidence_problem")];
  const { recorded_frames: frames, frames_per_second: fps, matched_share: matched, gaps, longest_gap: longest } = evidence;
  const told = [say("evidence_length", { seconds: Math.round(frames / fps), frames, fps: fps.toFixed(1) })];
  if (matched !== null) told.push(say("evidence_matched", { percent: (100 * matched).toFixed(1) }));
  told.push(gaps ? say("evidence_gaps", { gaps, longest: Math.round(1000 * longest) }) : say("evidence_no_gaps"));
  return told;
}

/** Something that counts as done if the server knows the thing no longer: an earlier try did it. */
async function once(request) {
  try {
    await request;
  } catch (error) {
    if (!(error instanceof Refused) || ![401, 404].includes(error.status)) throw error;
  }
}

main().catch(async (error) => {
  console.error(error);
  onStop();
  showSign();
  await message(say("broken_title"), error.message, { again: say("try_again") });
  location.reload();
});
