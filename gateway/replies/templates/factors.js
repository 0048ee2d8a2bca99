// Passkeys: the browser's own dialogue between a page's form and its answer. The words are the page's.
"use strict";

for (const form of document.querySelectorAll("form[data-key]")) {
  const button = form.querySelector("[data-start]");
  const said = form.querySelector("[data-said]");
  const { key, options, ready, waiting, failed, unable } = form.dataset;
  const able = window.PublicKeyCredential
    && PublicKeyCredential.parseRequestOptionsFromJSON
    && PublicKeyCredential.parseCreationOptionsFromJSON;

  const ask = () => {
    const wanted = JSON.parse(options);
    return key === "create"
      ? navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(wanted) })
      : navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(wanted) });
  };

  if (!able) {
    said.textContent = unable;
    continue;
  }
  said.textContent = ready;
  button.disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    said.textContent = waiting;
    try {
      const credential = await ask();
      const answer = document.createElement("input");
      answer.type = "hidden";
      answer.name = "answer";
      answer.value = JSON.stringify(credential.toJSON());
      form.append(answer);
      form.submit();
    } catch {
      said.textContent = failed;
      button.disabled = false;
      button.focus();
    }
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  const texts = document.querySelectorAll(`#${button.dataset.copy} code`);
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(Array.from(texts, (text) => text.textContent).join("\n"));
    button.textContent = button.dataset.copied;
  });
}
