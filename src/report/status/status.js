// Updates the page: fetches it again and replaces the changed parts. Without JavaScript the page reloads.
"use strict";

// Milliseconds.
const INTERVAL = 3000;
const TIMEOUT = 10000;
const link = document.getElementById("link");
let timer;

function showState(text) {
  if (link.textContent !== text) link.textContent = text;
  link.hidden = text === "";
}

async function update() {
  const response = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
  if (!response.ok) throw new Error(response.statusText);
  const next = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = next.getElementById(part.id);
    if (!fresh || fresh.isEqualNode(part)) continue;
    // The element itself stays, so that screen readers keep observing it.
    part.className = fresh.className;
    part.replaceChildren(...fresh.childNodes);
  }
  if (document.title !== next.title) {
    document.title = next.title;
    document.getElementById("announcement").textContent = next.title;
  }
}

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    await update();
    document.body.classList.remove("stale");
    showState("live");
  } catch {
    document.body.classList.add("stale");
    showState("not live: the gateway does not respond");
  }
  // Two polls may overlap at the await.
  clearTimeout(timer);
  timer = setTimeout(poll, INTERVAL);
}

document.addEventListener("visibilitychange", poll);
timer = setTimeout(poll, INTERVAL);
showState("live");
