// The list of tasks and of groups of them: those of hundreds that are shown, and those that are ticked.

import { byId, element, name } from "./elements.js";
import { getJson } from "./server.js";

const MANY = 10; // more of them have a filter
const MOST_ROWS = 50; // shown at once
const MOST_LISTED = 300; // labels of a task, or tasks of a group
const MOST_SAID = 5; // names of what is asked

let rows = new Map(); // by what is asked by them: a task's name, or a group's behind an @
let members = new Map(); // the tasks that each stands for
const ticked = new Set();

// What is ticked, as a request names it; none for all.
export const asked = () => [...ticked];

// How many tasks may answer.
export function countCandidates() {
  const names = ticked.size ? ticked : members.keys();
  return new Set([...names].flatMap((called) => members.get(called))).size;
}

const inShort = (names, most, rest) => names.length > most ? [...names.slice(0, most), rest(names.length - most)] : names;

// A list that is there once it is opened; `list` returns it, or a promise of it.
function openable(facts, list) {
  const details = element("details", {}, element("summary", {}, facts.join(", ")));
  details.addEventListener("toggle", async () => {
    const all = await list().catch((error) => [error.message]);
    const shown = all.slice(0, MOST_LISTED).flatMap((one, place) => [place ? ", " : "", name(one)]);
    const more = all.length > MOST_LISTED ? ` and ${all.length - MOST_LISTED} more` : "";
    details.append(element("p", {}, ...shown, more));
  }, { once: true });
  return details;
}

function row(called, facts, list) {
  const box = element("input", { type: "checkbox", value: called });
  return element("li", {}, element("label", { className: "choice" }, box, name(called)), openable(facts, list));
}

function taskRow({ name: called, revision, num_labels: count, each_token: eachToken, thresholds, individual_accuracy: accuracy }) {
  const facts = [`${count} labels`, `revision ${revision}`];
  if (eachToken) facts.push("finds entities");
  if (thresholds) facts.push("any number of them");
  if (accuracy !== null) facts.push(`accuracy ${accuracy.toFixed(3)}`);
  return row(called, facts, async () => (await getJson(`v1/tasks/${called}`)).labels);
}

function showMatching() {
  const part = byId("filter").value.toLowerCase();
  const found = [...rows].filter(([called]) => called.toLowerCase().includes(part)).map(([, made]) => made);
  byId("tasks").replaceChildren(...found.slice(0, MOST_ROWS));
  byId("more").hidden = found.length <= MOST_ROWS;
  byId("more").textContent = `${found.length - MOST_ROWS} more: type a part of a name to find them.`;
}

function showAsked() {
  byId("all").hidden = !ticked.size;
  const names = inShort(asked(), MOST_SAID, (more) => `and ${more} more`);
  byId("asked").textContent = ticked.size ? `Only ${names.join(", ")}.` : "All are asked. Tick some to ask them alone.";
}

// Shows what is served, and calls `changed` whenever other tasks are ticked.
export function showTasks({ tasks, groups }, changed) {
  const served = Object.entries(groups).filter(([, own]) => own.length).map(([group, own]) => [`@${group}`, own]);
  members = new Map([...served, ...tasks.map((task) => [task.name, [task.name]])]);
  rows = new Map([
    ...served.map(([called, own]) => [called, row(called, [`group of ${own.length} tasks`], async () => own)]),
    ...tasks.map((task) => [task.name, taskRow(task)]),
  ]);
  byId("filter").hidden = rows.size <= MANY;
  byId("filter").addEventListener("input", showMatching);
  byId("tasks").addEventListener("change", ({ target }) => {
    if (target.checked) ticked.add(target.value);
    else ticked.delete(target.value);
    showAsked();
    changed();
  });
  byId("all").addEventListener("click", () => {
    ticked.clear();
    for (const made of rows.values()) made.querySelector("input").checked = false;
    showAsked();
    changed();
  });
  showMatching();
}
