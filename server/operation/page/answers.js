// One input's answer: the label, the task, and why.

import { bars, element, image, name, percent } from "./elements.js";

const paragraph = (className, ...children) => element("p", { className }, ...children);
const heading = (text) => element("h3", {}, text);

function list(names) {
  return names.flatMap((called, place) => [place === 0 ? "" : place === names.length - 1 ? " and " : ", ", name(called)]);
}

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
  const said = ({ task, label, unrouted }) => (unrouted ? "none of these" : `${task}: ${label}`);
  const agree = new Set(ofModes.map(([, result]) => said(result))).size === 1;
  return [
    paragraph("task", agree ? "All modes agree." : "The modes do not agree."),
    bars(ofModes.map(([mode, result]) => [`${mode}, ${said(result)}`, result.score])),
    raw(Object.fromEntries(ofModes)),
  ];
}

function ofOne(result, numTasks, isOpen) {
  const { task, label, score, unrouted, alternatives = [] } = result;
  const headline = unrouted
    ? [
      paragraph("label", "None of these"),
      paragraph("doubt", "The input is unlike those of every task. The nearest is ", name(task), ": ", name(label), "."),
    ]
    : [paragraph("label", name(label)), paragraph("task", "task ", element("b", {}, name(task)), `, ${percent(score)}`)];
  const others = alternatives.map((other) => paragraph(
    "hint", "It may also be ", element("b", {}, name(other.label)), " of ", name(other.task), `, ${percent(other.coefficient)} likely.`));
  return [
    ...headline, ...others, ...unread(result),
    element("details", { className: "why", open: isOpen }, element("summary", {}, "Why"), ...reasons(result, numTasks), raw(result)),
  ];
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
  const whole = results.filter((result) => !result.entities);
  const tokens = results.filter((result) => result.entities);
  return [
    paragraph("task", `${results.length} tasks answered; nothing was routed.`),
    ...unread(results[0]),
    bars(whole.map(({ task, label, score }) => [`${task}: ${label}`, score])),
    ...tokens.flatMap((result) => [heading(result.task), marked(input.text, result.entities)]),
    raw(results),
  ];
}
