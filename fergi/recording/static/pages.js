/** What all pages share: words, changing the page, asking, telling. */

const $ = (id) => document.getElementById(id);
const reduced = matchMedia("(prefers-reduced-motion: reduce)");
const STEPS = ["consent", "camera", "prompt", "images", "ranking"];
const STEP_OF = {
  ...{ consent: "consent", camera: "camera", structured: "prompt", free: "prompt", waiting: "images" },
  ...{ ready: "images", shown: "images", survey: "images", ranking: "ranking" },
};
let texts = {};
let newest = 0;

export async function loadTexts() {
  texts = await (await fetch("/static/texts.json")).json();
  fillIn(document);
}

/** The study's own words in place of ours. */
export function replaceTexts(own) {
  Object.assign(texts, own);
  fillIn(document);
}

export function say(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

export function fillIn(root) {
  for (const each of root.querySelectorAll("[data-text]")) each.textContent = say(each.dataset.text);
  for (const each of root.querySelectorAll("[data-label]")) each.setAttribute("aria-label", say(each.dataset.label));
  for (const each of root.querySelectorAll("[data-placeholder]")) each.placeholder = say(each.dataset.placeholder);
}

export function copy(template) {
  const part = $(template).content.firstElementChild.cloneNode(true);
  fillIn(part);
  return part;
}

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Show a page in the first frame that is painted not before a time; the frame's own time, ms of the page's clock.
    A later call takes the place of one that still waits. */
export function show(template, prepare = () => {}, notBefore = 0) {
  const page = copy(template);
  prepare(page);
  const mine = ++newest;
  return new Promise((resolve) => {
    requestAnimationFrame(function frame(time) {
      if (mine !== newest) return;
      if (time < notBefore - 1) return requestAnimationFrame(frame);
      document.body.dataset.page = template;
      document.querySelector("main").replaceChildren(page);
      const heading = page.querySelector("h1");
      document.title = `${heading.textContent} – ${$("study").textContent}`;
      showStep(STEP_OF[template]);
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
      scrollTo(0, 0);
      resolve({ page, time });
    });
  });
}

function showStep(current) {
  $("steps").hidden = !current;
  $("steps").ariaLabel = say("steps");
  const place = STEPS.indexOf(current);
  const items = STEPS.map((step, number) => {
    const item = make("li", { textContent: say(`step_${step}`), className: number < place ? "past" : "" });
    if (number === place) item.ariaCurrent = "step";
    return item;
  });
  $("steps").firstElementChild.replaceChildren(...items);
}

/** A page with a heading, a sentence and buttons (name → text); resolves with the name of the one pressed. */
export async function message(title, text, buttons = {}) {
  const { page } = await show("message", (page) => {
    page.querySelector("h1").textContent = title;
    page.querySelector(".lead").textContent = text;
  });
  return choose(page.querySelector(".buttons"), buttons);
}

/** Put buttons (name → text) into a place; resolves with the name of the one pressed. */
export function choose(place, buttons) {
  return new Promise((resolve) => {
    const made = Object.entries(buttons).map(([name, textContent], number) => {
      const style = { withdraw: "danger", delete: "danger", forget: "quiet", other: "quiet" };
      const className = style[name] ?? (number ? "quiet" : "");
      return make("button", { type: "button", name, textContent, className, onclick: () => resolve(name) });
    });
    place.replaceChildren(...made);
  });
}

/** A question in a dialog over the page; Escape gives the name of the first button. */
export async function ask(title, text, buttons) {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  const chosen = choose(dialog.querySelector(".buttons"), buttons);
  dialog.showModal();
  const escaped = new Promise((resolve) => (dialog.onclose = () => resolve(Object.keys(buttons)[0])));
  const answer = await Promise.race([chosen, escaped]);
  dialog.close();
  return answer;
}

/** Close a question that no longer matters. */
export function endQuestion() {
  $("ask").close();
}

export const pressed = (button) => new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));

/** Say it to those who listen instead of looking. */
export function announce(text) {
  $("live").textContent = text;
}

/** The sign at the top: "recording", "camera_on" or none. */
export function showSign(key) {
  $("sign").hidden = !key;
  $("sign").className = key ?? "";
  $("sign").textContent = key ? say(key) : "";
}

/** The stop button does this; it is hidden without. */
export function onStop(action) {
  $("stop").hidden = !action;
  $("stop").onclick = action;
}

/** A sentence while requests fail: the server's own, or ours if it is silent (null). */
export function showTrouble(sentence) {
  $("trouble").hidden = sentence === undefined;
  $("trouble").textContent = sentence === undefined ? "" : (sentence ?? say("server_away"));
}

/** Name what is wrong with a form, and go to the first field that is. */
export function complain(page, sentence, field) {
  const problem = page.querySelector(".problem");
  for (const each of page.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  if (field) {
    (field.closest(".row, .rating") ?? field.closest("label, fieldset")).before(problem);
    field.ariaInvalid = "true";
    field.focus({ preventScroll: true });
    field.scrollIntoView({ block: "center", behavior: reduced.matches ? "auto" : "smooth" });
    page.addEventListener("input", () => complain(page, ""), { once: true });
  }
  problem.textContent = sentence;
}

export function shuffled(list) {
  const order = [...list];
  for (let place = order.length - 1; place > 0; place--) {
    const other = Math.floor(Math.random() * (place + 1));
    [order[place], order[other]] = [order[other], order[place]];
  }
  return order;
}
