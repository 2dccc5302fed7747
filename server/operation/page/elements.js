// Elements are made of text alone: no name or label of a store is ever read as HTML.

export const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A name that others chose: its direction is its own, and does not reach what stands beside it.
export const name = (text) => element("bdi", {}, text);

export const percent = (share) => `${(share * 100).toFixed(1)} %`;

// Rows of [name, share from 0 to 1], each with a bar and what `describe` says of the share.
export function bars(rows, describe = percent) {
  return element("dl", { className: "bars" }, ...rows.map(([called, share]) => {
    const fill = element("i");
    fill.style.width = percent(Math.max(0, Math.min(1, share))).replace(" ", "");
    const track = element("span", { className: "track", ariaHidden: "true" }, fill);
    return element("div", {}, element("dt", {}, name(called)), element("dd", {}, track, describe(share)));
  }));
}

export function image(blob, description) {
  const made = element("img", { alt: description });
  made.onload = () => {
    made.classList.toggle("small", made.naturalWidth < 128);
    URL.revokeObjectURL(made.src);
  };
  made.onerror = () => made.replaceWith("(not a picture that this browser can show)");
  made.src = URL.createObjectURL(blob);
  return made;
}
