import { answerOf, comparison, inputOf, inWords } from "./answers.js";
import { byId, element, image } from "./elements.js";
import { classify, command, getBlob, getJson } from "./server.js";
import { asked as askedTasks, countCandidates, showTasks } from "./tasks.js";

const AT_ONCE = 4; // requests side by side
const MOST_INPUTS = 200;
const COMPARED = "compared"; // stands for every mode

let readsTexts = false; // else images
let modes = []; // of the search for a task, the server's own first
let inputs = [];
let running = new AbortController();

function question() {
  const kind = document.querySelector("[name=question]:checked").value;
  const numTasks = countCandidates();
  const isSearch = kind !== "each" && numTasks !== 1;
  return { tasks: askedTasks(), numTasks, kind, mode: isSearch ? byId("mode").value : "" };
}

// Asks about inputs, and shows each answer once it is there. Another call takes this one's place.
async function ask() {
  running.abort();
  running = new AbortController();
  showCommand();
  const asked = question();
  const { signal } = running;
  const places = inputs.map((input) => element("li", { className: readsTexts ? "of-text" : "" }, inputOf(input)));
  byId("answers").replaceChildren(...places);
  if (!inputs.length) return;
  byId("status").classList.remove("unseen");
  byId("status").textContent = inputs.length === 1 ? "Asking …" : `Asking about ${inputs.length} …`;
  if (byId("answered").getBoundingClientRect().top > innerHeight * 0.8) byId("answered").scrollIntoView();
  // Inputs of one task go together; others apart, so that one that is refused does not stop the rest.
  const groups = asked.kind === "same_task" ? [[...inputs.keys()]] : [...inputs.keys()].map((place) => [place]);
  const told = [];
  const waiting = groups.values();
  const work = async () => {
    for (const group of waiting) told.push(await askGroup(group, places, asked, signal));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (signal.aborted) return;
  const failed = told.filter((sentence) => sentence === null).length;
  const isAll = inputs.length === 1 && !failed; // then the answer beside it says the same to whoever sees it
  byId("status").classList.toggle("unseen", isAll);
  byId("status").textContent = failed ? `${failed} of ${told.length} requests failed.` : isAll ? told[0] : `${inputs.length} answers.`;
}

// Asks about inputs of one request and shows its answers. Returns them in words, or null where there are none.
async function askGroup(group, places, asked, signal) {
  if (signal.aborted) return null;
  try {
    const together = group.map((place) => inputs[place]);
    if (asked.mode === COMPARED) {
      const results = await Promise.all(modes.map((mode) => classify(together, { ...asked, mode }, signal)));
      if (signal.aborted) return null;
      group.forEach((place, at) => {
        const ofModes = modes.map((mode, row) => [mode, results[row][at]]);
        places[place].append(element("div", {}, ...comparison(ofModes)));
      });
      return "All modes answered.";
    }
    const results = await classify(together, asked, signal);
    if (signal.aborted) return null;
    const each = results.length / group.length;
    group.forEach((place, at) => {
      const own = results.slice(at * each, (at + 1) * each);
      const answer = answerOf(own, inputs[place], asked.numTasks, inputs.length === 1);
      places[place].append(element("div", {}, ...answer));
    });
    return inWords(results);
  } catch (error) {
    if (signal.aborted) return null;
    for (const place of group) places[place].append(element("p", { className: "error" }, error.message));
    return null;
  }
}

function askAbout(chosen) {
  if (!chosen.length) return;
  inputs = chosen.slice(0, MOST_INPUTS);
  ask().then(() => {
    if (chosen.length > MOST_INPUTS) byId("status").append(` Only the first ${MOST_INPUTS} of ${chosen.length} were asked about.`);
  });
}

function askAboutFiles(files) {
  askAbout([...files].map((file) => ({ blob: file, called: file.name })));
}

function textsOf(area) {
  const texts = byId("lines").checked ? area.value.split("\n") : [area.value];
  return texts.filter((one) => one.trim());
}

function askAboutText() {
  const firsts = textsOf(byId("text"));
  const seconds = textsOf(byId("seconds"));
  if (!seconds.length) askAbout(firsts.map((one) => ({ text: one })));
  else if (firsts.length === seconds.length) askAbout(firsts.map((one, at) => ({ text: one, pair: seconds[at] })));
  else tell(`There are ${firsts.length} first and ${seconds.length} second texts; a pair needs one of each.`);
}

function tell(wrong) {
  byId("status").classList.remove("unseen");
  byId("status").replaceChildren(element("span", { className: "error" }, wrong));
}

function showCommand() {
  const example = readsTexts ? { text: "What is this about?" } : { called: "image.png" };
  const asked = question();
  if (asked.mode === COMPARED) asked.mode = "";
  byId("command").textContent = command(inputs.length ? inputs : [example], asked);
}

async function copyCommand() {
  const text = byId("command");
  getSelection().selectAllChildren(text);
  // Only pages of this machine and those of https may write to the clipboard.
  const copied = await navigator.clipboard?.writeText(text.textContent).then(() => true, () => false);
  byId("copied").textContent = copied ? "Copied." : "Selected: press Ctrl C.";
}

async function showSamples() {
  const { images, texts } = await getJson("page/samples");
  const list = document.querySelector("#samples ul");
  const offer = (input, ...content) => {
    const button = element("button", {}, ...content);
    button.addEventListener("click", () => askAbout([input]));
    list.append(element("li", {}, button));
  };
  if (readsTexts) for (const text of texts) offer({ text }, text);
  else for (const called of images) {
    const blob = await getBlob(`page/samples/${encodeURIComponent(called)}`);
    offer({ blob, called }, image(blob, called.replace(/\.[^.]*$/, "")));
  }
  byId("samples").hidden = !list.children.length;
}

async function start() {
  try {
    // Labels of hundreds of tasks would be megabytes.
    const served = await getJson("v1/tasks?labels=false");
    modes = served.modes;
    readsTexts = served.reads === "texts";
    byId("summary").textContent = `${served.tasks.length} classifiers of ${served.reads} behind one encoder. Send ${readsTexts ? "a text" : "an image"}, and the server finds out whose it is. Store revision ${served.store_revision}.`;
    byId("texts").hidden = !readsTexts;
    byId("images").hidden = readsTexts;
    byId("search").hidden = modes.length === 1;
    byId("mode").replaceChildren(
      ...modes.map((mode, at) => element("option", { value: at ? mode : "" }, at ? mode : `${mode}, as the server does`)),
      element("option", { value: COMPARED }, "each, to compare"));
    showTasks(served, ask);
    showCommand();
    await showSamples();
  } catch (error) {
    tell(error.message);
  }
}

byId("files").addEventListener("change", (event) => {
  askAboutFiles(event.target.files);
  event.target.value = ""; // the same file may be chosen again
});
byId("texts").addEventListener("submit", (event) => { event.preventDefault(); askAboutText(); });
byId("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) askAboutText();
});
byId("lines").addEventListener("change", (event) => {
  const lines = event.target.checked;
  byId("text-label").textContent = lines ? "Texts, one on each line" : "Text";
  byId("seconds-label").textContent = lines ? "Second texts, one on each line" : "Second text";
});
byId("question").addEventListener("change", ask);
byId("copy").addEventListener("click", copyCommand);

for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => {
  if (readsTexts) return;
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  if (readsTexts) return;
  event.preventDefault();
  document.body.classList.remove("over");
  askAboutFiles(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => { if (!readsTexts) askAboutFiles(event.clipboardData.files); });

start();
