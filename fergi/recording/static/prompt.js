/** The prompt page: the form of a structured session (Appendix A.2.1), or one text. */

import { complain, copy, fillIn, make, message, say, show } from "./pages.js";
import { Refused } from "./server.js";

const OBJECTS = {
  animate: ["name", "quantity", "activity", "characteristics"],
  inanimate: ["name", "quantity", "characteristics"],
};
const RELATIONS = ["interactional", "positional"];
const MOST = 10; // of a section
const words = (text) => text.split(",").map((word) => word.trim()).filter(Boolean);

/** Resolves with prompt and form (null without one) when the server has begun with the images. `prompt` is given in a
    study of fixed ones. */
export async function promptPage(server, { number, kind, prompt: fixed }, study) {
  if (fixed) {
    await message(say("prompt_title_fixed"), fixed, { go: say("continue") });
    const wanted = { prompt: fixed, form: null };
    await server.post(`/api/sessions/${number}/images`, wanted);
    return wanted;
  }
  const { page } = await show(kind, (page) => {
    const notes = [study.prompt_note, study.image_source_note, study.drawn && say("prompt_drawn")];
    page.querySelector(".source").textContent = notes.filter(Boolean).join(" ");
    if (kind === "structured") buildForm(page);
  });
  const send = async () => {
    const field = page.elements.prompt;
    const prompt = field.value.trim().replace(/\s+/g, " ");
    if (!field.checkVisibility()) return propose(server, number, page); // Enter in a field of the form
    if (!prompt) return complain(page, say("prompt_empty"), field);
    const wanted = { prompt, form: kind === "structured" ? readForm(page) : null };
    return (await attempt(page, () => server.post(`/api/sessions/${number}/images`, wanted))) && wanted;
  };
  return new Promise((resolve, reject) => {
    if (kind === "structured") page.elements.generate.onclick = () => propose(server, number, page).catch(reject);
    page.onsubmit = (event) => {
      event.preventDefault();
      send().then((wanted) => wanted && resolve(wanted), reject);
    };
  });
}

/** The answer of a request; null, with the server's sentence at the field in question, if it is refused. */
async function attempt(page, request) {
  const buttons = [...page.querySelectorAll(".buttons button")].filter((button) => !button.disabled);
  for (const button of buttons) button.disabled = true;
  page.ariaBusy = "true";
  try {
    complain(page, "");
    return (await request()) ?? {};
  } catch (error) {
    if (!(error instanceof Refused) || ![400, 413, 422].includes(error.status)) throw error;
    complain(page, error.message, fieldOf(page, error.answer.field ?? "prompt"));
    return null;
  } finally {
    for (const button of buttons) button.disabled = false;
    page.ariaBusy = "false";
  }
}

async function propose(server, number, page) {
  const answer = await attempt(page, () => server.post(`/api/sessions/${number}/proposal`, { form: readForm(page) }));
  if (!answer) return;
  const { generate, prompt } = page.elements;
  page.querySelector("#proposal").hidden = false;
  prompt.value = answer.text;
  page.querySelector("#by").textContent = answer.note ?? "";
  page.querySelector("#attempts").textContent = say("prompt_attempts", { left: answer.attempts_left });
  generate.disabled = !answer.attempts_left;
  prompt.focus();
}

// The form ----------------------------------------------------------------------------------------------------------

function buildForm(page) {
  for (const section of [...Object.keys(OBJECTS), ...RELATIONS]) {
    const part = copy("prompt-section");
    part.dataset.section = section;
    part.querySelector("legend").textContent = say(section);
    const rule = section in OBJECTS ? "" : ` ${say("relation_rule")}`;
    part.querySelector(".note").textContent = say(`${section}_note`) + rule;
    const add = part.querySelector(".add");
    add.textContent = say(`add_${section}`);
    add.onclick = () => addRow(page, part).querySelector("input, select").focus();
    page.querySelector(".sections").append(part);
  }
  page.oninput = () => refresh(page);
  page.querySelector("#attempts").textContent = say("prompt_attempts", { left: 2 });
  refresh(page);
}

function field(name, label, control) {
  control.name = name;
  return make("label", { className: `field ${name}` }, make("span", { textContent: say(label) }), control);
}

function addRow(page, part) {
  const section = part.dataset.section;
  const row = make("div", { className: "row", role: "group" });
  if (section in OBJECTS) {
    for (const name of OBJECTS[section]) {
      const input = make("input", { maxLength: 200, autocomplete: "off" });
      if (name === "quantity") Object.assign(input, { type: "number", min: 1, max: 100, value: 1 });
      if (name === "characteristics") input.dataset.placeholder = "hint_commas";
      if (name === "activity") input.dataset.placeholder = "hint_optional";
      row.append(field(name, `field_${name}`, input));
    }
  } else {
    const interactional = section === "interactional";
    const relation = make("input", { maxLength: 200, autocomplete: "off" });
    row.append(
      field("first", interactional ? "field_first_animate" : "field_first", make("select")),
      field("relation", interactional ? "field_relation" : "field_place", relation),
      field("second", "field_second", make("select")),
    );
  }
  const remove = make("button", { type: "button", className: "quiet remove", textContent: say("remove") });
  remove.onclick = () => {
    forget(page, row);
    row.remove();
    refresh(page);
    part.querySelector(".add").focus();
  };
  row.append(remove);
  fillIn(row);
  part.querySelector(".rows").append(row);
  refresh(page);
  return row;
}

const rows = (page, section) => [...page.querySelectorAll(`[data-section="${section}"] .row`)];
const value = (row, name) => row.querySelector(`[name="${name}"]`)?.value.trim() ?? "";

/** Relations that point behind a removed object point to the one that moves into their place. */
function forget(page, row) {
  const section = row.closest("[data-section]").dataset.section;
  if (!(section in OBJECTS)) return;
  const removed = rows(page, section).indexOf(row) + 1;
  for (const select of page.querySelectorAll("select")) {
    const [of, place] = select.value.split(" ");
    if (of !== section || place < removed) continue;
    const moved = place > removed ? `${section} ${place - 1}` : "";
    select.replaceChildren(make("option", { value: moved, selected: true }));
  }
}

/** What each list of objects offers: the named ones without an activity that no other relation involves. */
function refresh(page) {
  const objects = Object.keys(OBJECTS).flatMap((section) =>
    rows(page, section).map((row, place) => ({
      id: `${section} ${place + 1}`,
      name: value(row, "name"),
      free: value(row, "name") && !value(row, "activity"),
    })),
  );
  const selects = [...page.querySelectorAll("select")];
  const chosen = selects.map((select) => select.value);
  selects.forEach((select, place) => {
    const animate = select.name === "first" && select.closest("[data-section]").dataset.section === "interactional";
    const offered = objects.filter(({ id, free }) =>
      free && (id === chosen[place] || !chosen.includes(id)) && (!animate || id.startsWith("animate")),
    );
    const options = offered.map(({ id, name }) => make("option", { value: id, textContent: name }));
    select.replaceChildren(make("option", { value: "", textContent: say("select") }), ...options);
    select.value = offered.some(({ id }) => id === chosen[place]) ? chosen[place] : "";
  });
  for (const section of [...Object.keys(OBJECTS), ...RELATIONS]) {
    rows(page, section).forEach((row, place) => (row.ariaLabel = `${say(section)}, ${place + 1}`));
    const add = page.querySelector(`[data-section="${section}"] .add`);
    const few = section in OBJECTS ? false : objects.filter(({ free }) => free).length < 2;
    add.disabled = few || rows(page, section).length >= MOST;
  }
}

function readForm(page) {
  const objects = (section) =>
    rows(page, section).map((row) => ({
      ...Object.fromEntries(OBJECTS[section].map((name) => [name, value(row, name)])),
      quantity: Number(value(row, "quantity")),
      characteristics: words(value(row, "characteristics")),
    }));
  const relations = (section) =>
    rows(page, section).map((row) =>
      Object.fromEntries(["first", "relation", "second"].map((name) => [name, value(row, name)])),
    );
  return {
    ...Object.fromEntries(Object.keys(OBJECTS).map((section) => [section, objects(section)])),
    ...Object.fromEntries(RELATIONS.map((section) => [section, relations(section)])),
    location: page.elements.location.value.trim(),
    style: page.elements.style.value.trim(),
    keywords: words(page.elements.keywords.value),
  };
}

/** The control that a path such as `animate.1.name` means. */
function fieldOf(page, path) {
  const [section, place, name] = path.split(".");
  if (page.elements[section]?.focus) return page.elements[section];
  const row = rows(page, section)[place - 1];
  return row?.querySelector(`[name="${name}"]`) ?? page.querySelector(`[data-section="${section}"] .add`);
}
