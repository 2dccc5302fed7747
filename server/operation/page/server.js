// What is asked of the server, and the same as a command.

import { byId } from "./elements.js";

const TRIES = 4;
const LONGEST_WAIT = 10; // seconds

let key = "";
let typing = null; // the key that is being asked for: requests that run side by side ask once

// Returns the response to a request, with the key that the server asks for, and once it is not too busy.
// Throws an Error whose message is the server's sentence.
async function respond(path, options) {
  for (let tries = 1; ; tries++) {
    const sent = key;
    const response = await fetch(path, { ...options, headers: sent ? { "X-API-Key": sent } : {} }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Error("The server cannot be reached.");
    });
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After"));
    if (response.status === 401 && (sent !== key || await typeKey())) continue;
    if (wait && tries < TRIES) await new Promise((resolve) => setTimeout(resolve, Math.min(wait, LONGEST_WAIT) * 1000));
    else throw new Error((await response.json().catch(() => ({}))).error ?? `The server answered ${response.status}.`);
  }
}

// Returns whether the user gave a key.
function typeKey() {
  typing ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    const done = (given) => {
      typing = null;
      key = given || key;
      byId("key").value = "";
      dialog.close();
      resolve(Boolean(given));
    };
    byId("key-form").onsubmit = (event) => { event.preventDefault(); done(byId("key").value); };
    byId("no-key").onclick = dialog.oncancel = () => done("");
    dialog.showModal();
  });
  return typing;
}

export const getJson = async (path) => (await respond(path, {})).json();
export const getBlob = async (path) => (await respond(path, {})).blob();

// What is asked beside the inputs: { tasks: names, or none for all, kind: "best", "each" or "same_task", mode: of the search, or "" for the server's }.
function query({ tasks, kind, mode }) {
  const asked = [];
  if (tasks.length) asked.push(`tasks=${tasks.join(",")}`);
  if (kind === "each") asked.push("answer=each");
  if (kind === "same_task") asked.push("same_task=true");
  if (mode) asked.push(`mode=${mode}`);
  return asked.length ? `?${asked.join("&")}` : "";
}

const textOf = ({ text, pair }) => (pair === undefined ? text : { text, text_pair: pair });

function body(inputs) {
  if (inputs[0].text !== undefined) return JSON.stringify({ texts: inputs.map(textOf) });
  const form = new FormData();
  for (const { blob, called } of inputs) form.append("images", blob, called);
  return form;
}

// Returns the server's results for inputs, each { text }, { text, pair } or { blob, called }.
export async function classify(inputs, question, signal) {
  const response = await respond(`v1/classify${query(question)}`, { method: "POST", body: body(inputs), signal });
  return (await response.json()).results;
}

const quoted = (word) => `'${word.replaceAll("'", String.raw`'\''`)}'`;

// Returns the command that asks the same with curl.
export function command(inputs, question) {
  const words = ["curl"];
  if (key) words.push('-H "X-API-Key: $KEY"');
  if (inputs[0].text !== undefined) words.push("-d", quoted(body(inputs)));
  else for (const { called } of inputs) words.push("-F", quoted(`images=@"${called.replaceAll(/[\\"]/g, String.raw`\$&`)}"`));
  const address = new URL(`v1/classify${query(question)}`, document.baseURI).href;
  return [...words, quoted(address)].join(" ");
}
