// Keeps the page alive: asks for it again, and swaps the parts that changed. Without it the page only reloads.
"use strict";

const EVERY = 3000;
const PATIENCE = 10000;
const link = document.getElementById("link");
let timer;

function say(text) {
  if (link.textContent !== text) link.textContent = text;
  link.hidden = text === "";
}

async function look() {
  const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(answer.statusText);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = next.getElementById(part.id);
    if (!fresh || fresh.isEqualNode(part)) continue;
    // The element stays, so that a screen reader that listens to it goes on.
    part.className = fresh.className;
    part.replaceChildren(...fresh.childNodes);
  }
  if (document.title !== next.title) {
    document.title = next.title;
    document.getElementById("heard").textContent = next.title;
  }
}

async function turn() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    await look();
    document.body.classList.remove("stale");
    say("live");
  } catch {
    document.body.classList.add("stale");
    say("not live: the gateway does not answer");
  }
  // Two turns may have met at the await.
  clearTimeout(timer);
  timer = setTimeout(turn, EVERY);
}

document.addEventListener("visibilitychange", turn);
timer = setTimeout(turn, EVERY);
say("live");
