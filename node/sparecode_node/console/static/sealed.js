// SPDX-License-Identifier: Apache-2.0
// The page of a link to sealed codes: its button opens them, and this script decrypts them.
// services/secrets/sealed_links.py derives the same values from the link.
"use strict";

const KEY_INFO = "sparecode sealed codes: key";
const OPENER_INFO = "sparecode sealed codes: opener";
const NONCE_BYTES = 12;

const card = document.querySelector(".sealed");
const button = document.getElementById("sealed-open");

function say(what) {
  for (const each of document.querySelectorAll("[data-say]")) {
    each.hidden = each.dataset.say !== what;
  }
}

function bytesOf(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (each) => each.charCodeAt(0));
}

function textOf(bytes) {
  const plain = btoa(String.fromCharCode(...bytes));
  return plain.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function derived(secret, info) {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const bits = await crypto.subtle.deriveBits(
    { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: new TextEncoder().encode(info) },
    key,
    256,
  );
  return new Uint8Array(bits);
}

// The number by which the cluster knows this page if its answer is lost. A page that is
// loaded again in the same tab has the same one.
function pageNumber() {
  let number = sessionStorage.getItem("sealed-page");
  if (!number) {
    number = textOf(crypto.getRandomValues(new Uint8Array(16)));
    sessionStorage.setItem("sealed-page", number);
  }
  return number;
}

async function decrypted(secret, content) {
  const key = await crypto.subtle.importKey(
    "raw", await derived(secret, KEY_INFO), "AES-GCM", false, ["decrypt"],
  );
  const sealed = bytesOf(content.ciphertext);
  const plain = await crypto.subtle.decrypt(
    {
      name: "AES-GCM",
      iv: sealed.slice(0, NONCE_BYTES),
      additionalData: new TextEncoder().encode(content.associated),
    },
    key,
    sealed.slice(NONCE_BYTES),
  );
  return JSON.parse(new TextDecoder().decode(plain));
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function show(content, codes) {
  const opened = document.getElementById("sealed-opened");
  const sheet = document.querySelector(".sheet");
  for (const each of [opened, sheet]) {
    each.lang = content.language;
    each.dir = content.direction;
    each.querySelector("[data-part=rules]").textContent = content.rules;
    each.hidden = false;
  }
  opened.querySelector("[data-part=keeping]").textContent = content.keeping;
  sheet.querySelector("h1").textContent = content.title;
  sheet.querySelector(".sheet-foot").textContent = `${content.keeping} ${content.issued}`;
  for (const [name, value] of content.facts) {
    opened.querySelector("dl").append(element("dt", name), element("dd", value));
    const row = document.createElement("tr");
    row.append(element("th", name), element("td", value));
    sheet.querySelector("table").append(row);
  }
  sheet.querySelector("ol").classList.toggle("many", codes.length > 20);
  codes.forEach((code, index) => {
    const line = document.createElement("li");
    line.append(element("span", index + 1, "ordinal"), element("span", code, "code"));
    opened.querySelector("ol").append(line);
    const printed = document.createElement("li");
    printed.append(
      element("span", "", "box"), element("span", index + 1, "ordinal"), element("span", code, "code"),
    );
    sheet.querySelector("ol").append(printed);
  });
  document.getElementById("sealed-closed").hidden = true;
  // The history of this tab loses the link, which opens nothing now. The browser's own
  // list of visited pages may keep it.
  history.replaceState(null, "", location.pathname);
  // Its answer is not lost: the next person at this tab gets nothing in the minute that is left.
  sessionStorage.removeItem("sealed-page");
  say("shown");
  opened.focus();
}

async function open(secret) {
  let opener;
  try {
    opener = textOf(await derived(secret, OPENER_INFO));
  } catch {
    return say("broken");
  }
  let answer;
  try {
    answer = await fetch(card.dataset.open, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ opener, page: pageNumber() }),
    });
    if (answer.status === 410) return say("closed");
    if (!answer.ok) return say("again");
    answer = await answer.json();
  } catch {
    return say("again");
  }
  try {
    show(answer, await decrypted(secret, answer));
  } catch {
    say("broken");
  }
}

function secretInLink() {
  const text = location.hash.slice(1);
  return /^[A-Za-z0-9_-]{43}$/.test(text) ? bytesOf(text) : null;
}

function look() {
  button.disabled = !secretInLink();
  say(secretInLink() ? "" : "link");
}

button.addEventListener("click", async () => {
  const secret = secretInLink();
  button.disabled = true;
  await open(secret);
  button.disabled = false;
});
addEventListener("hashchange", look);
look();
