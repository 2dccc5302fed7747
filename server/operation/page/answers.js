// One input's answer: the label, the task, and why.

import { bars, element, image, name, percent } from "./elements.js";

const paragraph = (className, ...children) => element("p", { className }, ...children);
const heading = (text) => element("h3", {}, text);

const separator = (place, count) => place === 0 ? "" : place === count - 1 ? " and " : ", ";

function list(names) {
  return names.flatMap((called, place) => [separator(place, names.length), name(called)]);
}

// The labels that are the answer of a task: one or, where an input may have any number of them, those that `labels` has.
const given = ({ label, labels }) => labels ? labels.map((one) => one.label) : [label];
const named = (answer) => given(answer).length ? list(given(answer)) : ["no label"];
const inOneLine = (names) => names.map((called, place) => separator(place, names.length) + called).join("");

export function inputOf({ blob, text, pair, called }) {
  if (text !== undefined) {
    const second = pair === undefined ? [] : [element("hr"), name(pair)];
    return element("blockquote", { className: "input", tabIndex: 0 }, name(text), ...second);
  }
  return element("figure", { className: "input" }, image(blob, ""), element("figcaption", {}, name(called)));
}

// What a screen reader says of an answer.
export function inWords(results) {
  const [first] = results;
  if (results.length > 1) return `${results.length} tasks answered.`;
  if (first.entities) return `${first.entities.length} found by ${first.task}.`;
  if (first.unrouted) return "None of these: the input is unlike those of every task.";
  if (first.labels) return `${inOneLine(given(first)) || "No label"}, task ${first.task}.`;
  return `${first.label}, task ${first.task}, ${percent(first.score)}.`;
}

const unread = ({ cut }) => cut ? [paragraph("hint", `${cut} tokens of the text were not read: it is longer than the model reads.`)] : [];

// Returns the parts of an answer to which so many tasks were candidates.
export function answerOf(results, input, numTasks, isOpen) {
  if (results.length > 1) return ofEach(results, input);
  const [result] = results;
  return result.entities ? ofTokens(result, input) : ofOne(result, numTasks, isOpen);
}

// Returns what the modes answer about one input, side by side; `ofModes` are [mode, result].
export function comparison(ofModes) {
  const given = ({ label, labels }) => (labels ? labels.map((one) => one.label).join(", ") || "no label" : label);
  const said = (result) => (result.unrouted ? "none of these" : `${result.task}: ${given(result)}`);
  const agree = new Set(ofModes.map(([, result]) => said(result))).size === 1;
  return [
    paragraph("task", agree ? "All modes agree." : "The modes do not agree."),
    bars(ofModes.map(([mode, result]) => [`${mode}, ${said(result)}`, result.score])),
    raw(Object.fromEntries(ofModes)),
  ];
}

function ofOne(result, numTasks, isOpen) {
  const { task, unrouted, alternatives = [] } = result;
  const headline = unrouted
    ? [
      paragraph("label", "None of these"),
      paragraph("doubt", "The input is unlike those of every task. The nearest is ", name(task), ": ", ...named(result), "."),
    ]
    : result.labels ? ofLabels(result) : ofLabel(result);
  const others = alternatives.map((other) => paragraph(
    "hint", "It may also be ", element("b", {}, ...named(other)), " of ", name(other.task), `, ${percent(other.coefficient)} likely.`));
  return [
    ...headline, ...others, ...unread(result),
    element("details", { className: "why", open: isOpen }, element("summary", {}, "Why"), ...reasons(result, numTasks), raw(result)),
  ];
}

const ofTask = (task, ...more) => paragraph("task", "task ", element("b", {}, name(task)), ...more);

const ofLabel = ({ task, label, score }) => [paragraph("label", name(label)), ofTask(task, `, ${percent(score)}`)];

function ofLabels({ task, label, score, labels }) {
  if (labels.length) return [chips(labels), ofTask(task)];
  return [paragraph("label", "No label"), ofTask(task, ", none reaches its threshold: the likeliest is ", name(label), `, ${percent(score)}`)];
}

function chips(labels) {
  const items = labels.map(({ label, score }) => element("li", {}, name(label), " ", element("small", {}, percent(score))));
  return element("ul", { className: "chips", ariaLabel: "Labels" }, ...items);
}

function reasons({ task, top, routing }, numTasks) {
  const labels = [heading("Its labels"), bars(top.map(({ label, score }) => [label, score]))];
  const { coefficients, expert_set: experts, familiarity } = routing;
  if (familiarity === null) return [...labels, paragraph("hint", "Only this task was asked, so nothing was routed.")];
  const tried = Object.entries(coefficients).sort((a, b) => b[1] - a[1]);
  const rest = numTasks - tried.length;
  const left = Math.max(0, 1 - tried.reduce((sum, [, coefficient]) => sum + coefficient, 0));
  const tasks = rest > 0 ? [...tried, [rest === 1 ? "the other task" : `${rest} others together`, left]] : tried;
  const ran = ["Expert set, whose changes were applied: ", ...list(experts), "."];
  return [
    ...labels,
    heading("How likely each task is"), bars(tasks), paragraph("hint", ...ran),
    heading(`How much the input is like those of ${task}`), bars([["familiarity", familiarity]], (share) => share.toFixed(2)),
  ];
}

function raw(results) {
  return element("details", {}, element("summary", {}, "JSON"), element("pre", { tabIndex: 0 }, JSON.stringify(results, null, 1)));
}

function ofTokens(result, { text }) {
  const { task, entities } = result;
  return [
    paragraph("label", entities.length === 1 ? "1 entity" : `${entities.length} entities`),
    paragraph("task", "task ", element("b", {}, name(task))),
    ...unread(result),
    marked(text, entities),
    bars(entities.map((found) => [`${found.text} ${found.label}`, found.score])),
    raw(result),
  ];
}

// The text with its entities marked; their places count code points, where those of strings count halves of some.
function marked(text, entities) {
  const characters = Array.from(text);
  const parts = [];
  let end = 0;
  for (const found of entities) {
    const between = characters.slice(end, found.start).join("");
    parts.push(between, element("mark", {}, found.text, " ", element("small", {}, name(found.label))));
    end = found.end;
  }
  return paragraph("marked", ...parts, characters.slice(end).join(""));
}

function ofEach(results, input) {
  const whole = results.filter((result) => !result.entities && !result.labels);
  const several = results.filter((result) => result.labels);
  const tokens = results.filter((result) => result.entities);
  return [
    paragraph("task", `${results.length} tasks answered; nothing was routed.`),
    ...unread(results[0]),
    bars(whole.map(({ task, label, score }) => [`${task}: ${label}`, score])),
    ...several.flatMap((result) => [heading(result.task), result.labels.length ? chips(result.labels) : paragraph("hint", "no label")]),
    ...tokens.flatMap((result) => [heading(result.task), marked(input.text, result.entities)]),
    raw(results),
  ];
}
