/** The survey on one image (Appendix A.3.1) and the ranking of all (A.3.2). */

import { announce, complain, make, pressed, say, show, shuffled } from "./pages.js";
import Sortable from "./vendor/sortablejs-1.15.7/sortable.esm.js";

const LISTS = { issuesList: "issues", reactionList: "emotions" }; // name in the answer → in the study and on the page
const HIGHEST = 7;

/** The page for the image after its `seconds`; what was ticked comes in the study's order, however it was shown. */
export async function surveyPage(study, prompt, picture, image, n, notBefore) {
  const order = Object.fromEntries(
    Object.values(LISTS).map((name) => [name, study.survey.shuffle ? shuffled(study.survey[name]) : study.survey[name]]),
  );
  const { page, time } = await show("survey", (page) => {
    page.querySelector("h1").textContent = say("survey_title", { image, n });
    page.querySelector(".prompt").textContent = prompt;
    page.querySelector(".show").append(copyOf(picture, image));
    page.querySelector(".ratings").append(...study.survey.ratings.map(rating));
    for (const [name, options] of Object.entries(order)) page.elements[name].append(...options.map(tick));
    page.querySelector("button").textContent = say(image === n ? "survey_last" : "survey_next");
  }, notBefore);
  return { order, time, answered: answers(page, study) };
}

/** A picture shown again, whose painting is not logged. */
function copyOf(picture, image) {
  return make("img", { src: picture.src, alt: say("image_alt", { image }) });
}

function rating(name) {
  const scale = make("div", { className: "scale" });
  for (let value = 1; value <= HIGHEST; value++) {
    const radio = make("input", { type: "radio", name, value });
    scale.append(make("label", {}, radio, make("span", { textContent: value })));
  }
  const legend = make("legend", {}, say(name), make("span", { className: "note", textContent: say(`${name}_note`) }));
  const fieldset = make("fieldset", { className: "rating" }, legend, scale);
  fieldset.setAttribute("aria-describedby", "ends");
  return fieldset;
}

function tick(option) {
  return make("label", {}, make("input", { type: "checkbox", value: option }), make("span", { textContent: say(option) }));
}

function answers(page, study) {
  return new Promise((resolve) => {
    page.onsubmit = (event) => {
      event.preventDefault();
      const ratings = study.survey.ratings.map((name) => [name, Number(page.elements[name].value)]);
      const missing = ratings.find(([, value]) => !value);
      if (missing) return complain(page, say("rating_needed"), page.elements[missing[0]][0]);
      const lists = Object.entries(LISTS).map(([key, name]) => {
        const ticked = [...page.elements[name].querySelectorAll(":checked")].map((input) => input.value);
        return [key, Object.fromEntries(study.survey[name].map((option) => [option, ticked.includes(option)]))];
      });
      const missingElements = page.elements.missing.value.trim();
      resolve({ ...Object.fromEntries(ratings), ...Object.fromEntries(lists), missingElements });
    };
  });
}

/** The ranking page; images are the elements, from image 1. `ranked` resolves with ids from 0, best first. */
export async function rankingPage(prompt, images) {
  const n = images.length;
  const start = shuffled(images.keys());
  const { page, time } = await show("ranking", (page) => {
    page.querySelector("blockquote").textContent = prompt;
    page.style.setProperty("--n", n);
    page.querySelector("ol").append(...start.map((id) => rankedItem(images[id], id)));
  });
  const list = page.querySelector("ol");
  let moved = false;
  const tell = () => {
    [...list.children].forEach((item, place) => {
      item.ariaLabel = say("ranking_item", { image: Number(item.dataset.id) + 1, place: place + 1, n });
      item.querySelector(".place").textContent = place + 1;
      item.querySelector(".better").ariaDisabled = String(place === 0);
      item.querySelector(".worse").ariaDisabled = String(place === n - 1);
    });
  };
  const said = (item) => {
    moved = true;
    tell();
    const place = [...list.children].indexOf(item) + 1;
    announce(say("ranking_moved", { image: Number(item.dataset.id) + 1, place, n }));
  };
  const animation = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 150;
  const onEnd = ({ item, oldIndex, newIndex }) => oldIndex !== newIndex && said(item);
  const sortable = new Sortable(list, { animation, filter: "button", preventOnFilter: false, onEnd });
  const move = (item, by) => {
    const order = sortable.toArray();
    const place = order.indexOf(item.dataset.id);
    if (!(place + by in order)) return;
    [order[place], order[place + by]] = [order[place + by], order[place]];
    const focused = document.activeElement;
    sortable.sort(order, true);
    focused.focus();
    said(item);
  };
  list.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const item = event.target.closest("li");
    if (!by || !item) return;
    event.preventDefault();
    move(item, by);
  };
  list.onclick = (event) => {
    const button = event.target.closest("button");
    if (button) move(button.closest("li"), button.className === "better" ? -1 : 1);
  };
  tell();
  return { start, time, ranked: ranked(page, sortable, () => moved) };
}

function rankedItem(image, id) {
  const item = make("li", {}, copyOf(image, id + 1));
  item.dataset.id = id;
  const arrow = (className, text, key) => {
    const button = make("button", { type: "button", className, textContent: text });
    button.ariaLabel = say(key, { image: id + 1 });
    return button;
  };
  const moves = make("div", { className: "moves" });
  moves.append(arrow("better", "‹", "ranking_better"), make("span", { className: "place" }), arrow("worse", "›", "ranking_worse"));
  item.append(moves);
  return item;
}

async function ranked(page, sortable, moved) {
  const button = page.querySelector(".buttons button");
  await pressed(button);
  if (!moved()) {
    complain(page, say("ranking_untouched"));
    await pressed(button);
  }
  return sortable.toArray().map(Number);
}
