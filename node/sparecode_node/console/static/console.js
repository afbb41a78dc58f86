// SPDX-License-Identifier: Apache-2.0
// What a page does better with a script. Without this file every page still works.
"use strict";

document.documentElement.classList.add("script");

// The codes on the screen, one a line.
function codesIn(selector) {
  const list = document.querySelector(selector);
  return list ? [...list.querySelectorAll(".code")].map((each) => each.textContent) : [];
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied: select it yourself";
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) {
    copy(codesIn(button.dataset.copy).join("\n"), button);
  } else if (button.dataset.copyText) {
    copy(document.querySelector(button.dataset.copyText).textContent.trim(), button);
  } else if ("print" in button.dataset) {
    window.print();
  }
});

// A menu that somebody has opened is not taken away by results that come late: they are
// asked for again when it is closed.
let late = false;
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "results" && event.detail.target.querySelector(".menu:popover-open")) {
    event.detail.shouldSwap = false;
    late = true;
  }
});
document.addEventListener("toggle", (event) => {
  if (!late || event.newState !== "closed") return;
  late = false;
  document.querySelector("form.search").requestSubmit();
}, true);

// What was typed before anybody listened: it is not asked for by being typed.
document.addEventListener("htmx:load", () => {
  const field = document.querySelector("form.search[hx-get] input[type=search]");
  if (field && field.value !== field.defaultValue) field.form.requestSubmit();
}, { once: true });

// Leaving with codes that nobody has saved.
let leaving = false;
document.addEventListener("submit", (event) => {
  // Another console, in another tab: the browser's own business, and no leaving.
  if (event.submitter?.formTarget === "_blank") event.stopPropagation();
  // Signing out is leaving, too: only the form that holds the codes takes them along.
  else leaving = event.target.matches("[data-unsaved]");
}, true);
document.addEventListener("htmx:afterRequest", () => { leaving = false; });
window.addEventListener("beforeunload", (event) => {
  if (!leaving && document.querySelector("[data-unsaved]")) event.preventDefault();
});

// Whatever the browser keeps of a page that was left, codes are not in it.
window.addEventListener("pagehide", () => {
  for (const each of document.querySelectorAll(".codes, .sheet, .once, input[name=code], input[name^=enrolled]")) each.remove();
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// The administrator's own time zone, until they choose another.
function suggestZone() {
  const zone = document.querySelector("select[name=expires_zone]");
  if (!zone || !("suggested" in zone.dataset)) return;
  delete zone.dataset.suggested;
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (own === zone.value || ![...zone.options].some((option) => option.value === own)) return;
  const date = document.getElementById("expires_date");
  const time = document.getElementById("expires_time");
  const at = new Date(`${date.value}T${time.value}Z`);
  const two = (value) => String(value).padStart(2, "0");
  date.value = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  time.value = `${two(at.getHours())}:${two(at.getMinutes())}`;
  zone.value = own;
}
suggestZone();
document.addEventListener("htmx:load", suggestZone);

// A date or a time that is typed means that the codes shall end.
document.addEventListener("input", (event) => {
  if (event.target.name?.startsWith("expires_")) {
    document.getElementById("lifetime-until").checked = true;
  }
});

// The node has gone away while the page was open: say where the others are.
function unreachable() {
  const banner = document.getElementById("unreachable");
  if (!banner) return;
  banner.replaceChildren("This node does not answer. ");
  const others = document.body.dataset.others;
  if (others) {
    banner.append("Go on at another console: ");
    for (const other of others.split(",")) {
      const [name, address] = other.trim().split(" ");
      const link = document.createElement("a");
      link.href = address + location.pathname;
      link.textContent = name;
      banner.append(link, " ");
    }
  }
  banner.hidden = false;
}
document.addEventListener("htmx:sendError", unreachable);
document.addEventListener("htmx:timeout", unreachable);
document.addEventListener("htmx:afterRequest", (event) => {
  const banner = document.getElementById("unreachable");
  if (banner && event.detail.successful) banner.hidden = true;
});
