// SPDX-License-Identifier: Apache-2.0
// Conveniences that need a script. Every page works without this file.
"use strict";

document.documentElement.classList.add("script");

// The texts below, in the language of the page.
const texts = JSON.parse(document.documentElement.dataset.words);

// Return the codes on the page as a list.
function codesIn(selector) {
  const list = document.querySelector(selector);
  return list ? [...list.querySelectorAll(".code")].map((each) => each.textContent) : [];
}

async function copy(text, button) {
  const words = button.querySelector("span") || button; // Beside the icon, if it has one.
  try {
    await navigator.clipboard.writeText(text);
    words.textContent = texts.copied;
  } catch {
    words.textContent = texts.notCopied;
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

// The key "/" leads to the search in the header, unless text is being typed.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, [contenteditable]")) return;
  const field = document.getElementById("find");
  if (!field) return;
  event.preventDefault();
  field.focus();
  field.select();
});

// The box in the heading of a list chooses all of the page.
document.addEventListener("change", (event) => {
  const all = event.target.dataset.all;
  if (!all) return;
  for (const each of event.target.form.querySelectorAll(`input[name="${all}"]`)) each.checked = event.target.checked;
});

// A chosen file fills the text field below it: the form sends text, never a file.
document.addEventListener("change", async (event) => {
  const into = event.target.dataset.into && document.getElementById(event.target.dataset.into);
  const file = into && event.target.files[0];
  if (!file) return;
  const text = await file.text();
  const fits = text.length <= Number(into.dataset.longest);
  event.target.setCustomValidity(fits ? "" : texts.tooLong);
  event.target.reportValidity();
  into.value = fits ? text : "";
});

// Late search results must not replace an open menu. Search again when the menu closes.
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

// Text typed before the script loaded triggers no event: search for it now.
document.addEventListener("htmx:load", () => {
  const field = document.querySelector("form.search[hx-get] input[type=search]");
  if (field && field.value !== field.defaultValue) field.form.requestSubmit();
}, { once: true });

// The page of saved codes comes under the pointer that pressed Save. A second press must not leave
// it: its codes are shown once.
const SETTLED_MS = 1500;
let shownAt = -SETTLED_MS;
document.addEventListener("htmx:afterSwap", () => {
  if (document.getElementById("saved")) shownAt = performance.now();
});
document.addEventListener("click", (event) => {
  // A key that presses a link or button has no detail.
  if (!event.detail || performance.now() - shownAt >= SETTLED_MS) return;
  if (event.target.closest("#saved")) return;
  event.preventDefault();
  event.stopPropagation();
}, true);

// Warn before a page with unsaved codes is left.
let leaving = false;
document.addEventListener("submit", (event) => {
  // Another console opens in another tab, so this page stays. Let the browser send it.
  if (event.submitter?.formTarget === "_blank") event.stopPropagation();
  // Signing out leaves the page too: only the form with the codes takes them along.
  else leaving = event.target.matches("[data-unsaved]");
}, true);
document.addEventListener("htmx:afterRequest", () => { leaving = false; });
window.addEventListener("beforeunload", (event) => {
  if (!leaving && document.querySelector("[data-unsaved]")) event.preventDefault();
});

// Remove codes and secrets from a page that is left: the browser may keep the page.
window.addEventListener("pagehide", () => {
  for (const each of document.querySelectorAll(".codes, .sheet, .once, input[name=code], input[name^=enrolled]")) each.remove();
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// Show times in the browser's time zone, and UTC on hover.
function localTimes() {
  for (const each of document.querySelectorAll("input[data-zone]")) {
    each.value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
  for (const each of document.querySelectorAll("time.local")) {
    each.classList.remove("local");
    const { lang } = each.closest("[lang]");
    // English: as ISO 8601, like the texts of the node.
    const format = new Intl.DateTimeFormat(lang === "en" ? "en-GB" : lang, {
      year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
      hourCycle: "h23", timeZoneName: "short",
      ...(each.classList.contains("seconds") ? { second: "2-digit" } : {}),
    });
    each.title = each.textContent;
    if (lang !== "en") {
      each.textContent = format.format(new Date(each.dateTime));
      continue;
    }
    const parts = format.formatToParts(new Date(each.dateTime));
    const of = Object.fromEntries(parts.map((part) => [part.type, part.value]));
    const seconds = of.second ? `:${of.second}` : "";
    each.textContent = `${of.year}-${of.month}-${of.day} ${of.hour}:${of.minute}${seconds} ${of.timeZoneName}`;
  }
}
localTimes();
document.addEventListener("htmx:load", localTimes);

// Suggest the browser's time zone until the administrator chooses another.
function suggestZone() {
  const zone = document.querySelector("select[name=expires_zone]");
  if (!zone || !("suggested" in zone.dataset)) return;
  const days = Number(zone.dataset.suggested);
  delete zone.dataset.suggested;
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (own === zone.value || ![...zone.options].some((option) => option.value === own)) return;
  const date = document.getElementById("expires_date");
  const time = document.getElementById("expires_time");
  const at = new Date(`${date.value}T${time.value}Z`);
  // That number of days later, at this time of day: clocks may be changed in between.
  at.setUTCDate(at.getUTCDate() - days);
  at.setDate(at.getDate() + days);
  const two = (value) => String(value).padStart(2, "0");
  date.value = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  time.value = `${two(at.getHours())}:${two(at.getMinutes())}`;
  zone.value = own;
}
suggestZone();
document.addEventListener("htmx:load", suggestZone);

// A corrected field is no longer called wrong; the node checks it again.
document.addEventListener("input", (event) => {
  const problem = event.target.getAttribute("aria-invalid") && event.target.getAttribute("aria-describedby").split(" ")[0];
  if (!problem) return;
  document.getElementById(problem).hidden = true;
  for (const each of document.querySelectorAll(`[aria-describedby^="${problem}"]`)) each.removeAttribute("aria-invalid");
});

// Typing a date or a time selects “Expires on”.
document.addEventListener("input", (event) => {
  if (event.target.name?.startsWith("expires_")) {
    document.getElementById("lifetime-until").checked = true;
  }
});

// Links to another console take unsaved codes along, in another tab: this page stays.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const form = document.querySelector("form[data-unsaved]");
  const others = document.body.dataset.others || "";
  if (!link || !form || !others.split(",").some((other) => other.trim().split(" ")[1] === link.origin)) return;
  event.preventDefault();
  const button = document.createElement("button");
  button.hidden = true;
  button.name = "action";
  button.value = form.dataset.carry;
  // Not `form.action`: the buttons of the form have that name.
  button.formAction = link.origin + form.getAttribute("action");
  button.formTarget = "_blank";
  form.append(button);
  form.requestSubmit(button);
  button.remove();
});

// The node became unreachable while the page was open: link to the other consoles. In
// the form with the codes the notice is where the button was pressed.
function unreachable(event) {
  const gone = document.getElementById("gone");
  if (gone && event.detail.elt?.closest("form") === gone.closest("form")) {
    gone.hidden = false;
    gone.focus({ preventScroll: true });
    gone.scrollIntoView({ block: "center" });
    return;
  }
  const banner = document.getElementById("unreachable");
  if (!banner) return;
  banner.replaceChildren(`${texts.noAnswer} `);
  const others = document.body.dataset.others;
  if (others) {
    banner.append(`${texts.continueAt} `);
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
// A node that is slow to answer must not look like a button that was not pressed.
const PATIENCE_MS = 400;
let waiting;
function showWaiting(shown) {
  for (const each of document.querySelectorAll(".working")) each.hidden = !shown;
}
document.addEventListener("htmx:beforeRequest", (event) => {
  if (!event.detail.elt.querySelector?.(".working")) return;
  clearTimeout(waiting);
  waiting = setTimeout(showWaiting, PATIENCE_MS, true);
});
document.addEventListener("htmx:afterRequest", () => {
  clearTimeout(waiting);
  showWaiting(false);
});

document.addEventListener("htmx:sendError", unreachable);
document.addEventListener("htmx:timeout", unreachable);
document.addEventListener("htmx:afterRequest", (event) => {
  if (!event.detail.successful) return;
  for (const notice of document.querySelectorAll("#unreachable, #gone")) notice.hidden = true;
});
