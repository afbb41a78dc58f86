// SPDX-License-Identifier: Apache-2.0
// Passkeys (WebAuthn): the buttons that ask the browser before their form is sent.
"use strict";

const supported = Boolean(
  window.PublicKeyCredential?.parseCreationOptionsFromJSON
    && PublicKeyCredential.prototype.toJSON,
);
for (const each of document.querySelectorAll("[data-passkey]")) each.hidden = !supported;
for (const each of document.querySelectorAll("[data-no-passkey]")) each.hidden = supported;

// Why the browser gave no answer, in words. It tells a page little, for privacy.
function passkeyProblem(error) {
  const words = JSON.parse(document.documentElement.dataset.words);
  switch (error.name) {
    case "InvalidStateError":
      return words.passkeyExists;
    case "SecurityError":
      return words.passkeyDomain;
    default:
      return words.passkeyNone;
  }
}

async function optionsFrom(address) {
  const response = await fetch(address, { headers: { accept: "application/json" } });
  // A page instead of options: the session has ended or must be confirmed.
  if (!response.headers.get("content-type")?.startsWith("application/json")) {
    location.reload();
    return null;
  }
  return response.json();
}

async function answerOf(button) {
  const options = await optionsFrom(button.dataset.options);
  if (!options) return null;
  const credential = button.dataset.passkey === "create"
    ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
    : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  return JSON.stringify(credential.toJSON());
}

document.addEventListener("submit", async (event) => {
  const button = event.submitter;
  const field = event.target.querySelector("input[name=passkey]");
  if (!field || !button?.dataset.passkey) return;
  if (field.value) return;  // Sent again from below, with the answer.
  event.preventDefault();
  const problem = event.target.querySelector("[data-passkey-problem]");
  problem.hidden = true;
  button.disabled = true;
  try {
    const answer = await answerOf(button);
    button.disabled = false;
    if (answer === null) return;
    field.value = answer;
    event.target.requestSubmit(button);
    field.value = "";
  } catch (error) {
    button.disabled = false;
    problem.textContent = passkeyProblem(error);
    problem.hidden = false;
  }
});
