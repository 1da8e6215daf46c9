// @ts-check
// The dashboard put together: the feed, the figures, charts and tables that are drawn from it.
// `#/` is the overview, `#/s/<stream>` one stream's own page.

import { Api, Key } from "./api.js";
import { askForKey } from "./dialogs.js";
import { byId, h, icon, openMenu } from "./dom.js";
import { language, LANGUAGES, setLanguage, t, translate } from "./i18n.js";
import { Charts, repaint } from "./dashboard_charts.js";
import { Feed } from "./dashboard_feed.js";
import { drawCounts, drawEnded, drawFigures, drawHappened, drawTargets } from "./dashboard_lists.js";
import { StreamPage } from "./dashboard_stream.js";
import { Streams } from "./dashboard_streams.js";
import { address, MINUTES, parse, question } from "./dashboard_view.js";
import { named, w } from "./dashboard_words.js";
import { Preferences } from "./preferences.js";

/** Points and rows that are kept: an hour of seconds, and lists of what lately was. */
const MAX_POINTS = 3_600;
const MAX_LISTED = 100;
/** What happened often must not push out what happened once. */
const MAX_HAPPENED = 1_000;

const preferences = new Preferences();
setLanguage(preferences.get("language"));
const key = new Key();

/** @type {Promise<boolean> | null} */
let asking = null;
const api = new Api(key, (refusal) => {
  asking ??= askAgain(refusal.code === "invalid_api_key" ? t("key_wrong") : t("key_wanted")).finally(() => (asking = null));
  return asking;
});
const feed = new Feed(api);
const say = (/** @type {string} */ words) => void (byId("announcements").textContent = words);
const charts = new Charts(byId("charts"), say);
const page = new StreamPage(api, byId("stream"));
const streams = new Streams((change) => look(change));

/** The overview that is looked at, or was before a stream's page was opened. */
let view = parse(location.hash);
let paused = false;
/** @type {import("./dashboard_feed.js").Point[]} */
let points = [];
/** @type {any} */
let last = null;
/** @type {any} */
let spend = null;
/** @type {any[]} */
let ended = [];
/** @type {any[]} */
let happened = [];

/** @param {string} why */
async function askAgain(why) {
  const given = await askForKey(why);
  if (given) key.set(given.key, given.remember);
  return Boolean(given);
}

// --- what comes -------------------------------------------------------------------------------------

feed.addEventListener("history", (/** @type {any} */ { detail }) => {
  points = detail.points;
  ended = detail.ended.reverse().slice(0, MAX_LISTED);
  happened = detail.happened.reverse().slice(0, MAX_HAPPENED);
  spend = detail.spend ?? spend;
  streams.begin(detail.strips ?? {});
  if (!paused) draw();
});

feed.addEventListener("frame", (/** @type {any} */ { detail }) => {
  const { streams: rows = last?.streams ?? [], matching = last?.matching ?? 0, more = last?.more ?? 0 } = detail;
  last = { ...detail, streams: rows, matching, more };
  points.push(detail.point);
  if (points.length > MAX_POINTS) points.splice(0, points.length - MAX_POINTS);
  if (detail.spend) spend = detail.spend;
  if (detail.ended.length) ended = [...detail.ended.reverse(), ...ended].slice(0, MAX_LISTED);
  if (detail.happened.length) {
    happened = [...detail.happened.reverse(), ...happened].slice(0, MAX_HAPPENED);
    const breaker = detail.happened.find((/** @type {any} */ one) => one.kind.startsWith("breaker"));
    if (breaker) say(`${named("happened", breaker.kind)}: ${breaker.target}`);
  }
  if (detail.streams) streams.take(detail.streams);
  if (paused) return;
  if (!document.hidden) draw();
  page.frame(detail);
});

feed.addEventListener("state", () => drawLive());
setInterval(() => feed.state.phase === "lost" && drawLive(), 1_000);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  draw();
  if (feed.state.phase === "lost") feed.again();
});

// --- drawing ----------------------------------------------------------------------------------------

function draw() {
  if (!byId("overview").hidden && last) {
    drawFigures(last, spend);
    charts.update(points);
    streams.draw(last, view);
    drawEnded(ended, view);
    drawHappened(happened);
    drawTargets(last.targets, view);
    drawCounts(last.totals, spend, view);
  }
  document.documentElement.dataset.frames = String(points.length);
}

function drawLive() {
  const { phase, until } = feed.state;
  const place = byId("live");
  const words = paused && phase === "live" ? w("live_paused") : phase === "live"
    ? last?.unready === "draining" ? w("live_draining") : w("live")
    : phase === "lost" ? w("live_lost", { count: Math.max(0, Math.ceil((until - Date.now()) / 1000)) })
    : phase === "connecting" ? w("live_connecting") : "";
  if (place.textContent !== words) place.textContent = words;
  place.dataset.phase = paused && phase === "live" ? "paused" : phase;
  const refused = byId("refused");
  refused.hidden = phase !== "refused" && phase !== "off";
  if (!refused.hidden) {
    const name = phase === "off" ? "off" : "refused";
    refused.replaceChildren(h("h2", { text: w(`${name}_title`) }), h("p", { text: w(`${name}_about`) }),
      phase === "refused" ? h("button", { type: "button", class: "button primary", text: w("other_key"), onclick: () => void otherKey() }) : "");
  }
  document.body.classList.toggle("shut", !refused.hidden);
}

/** Everything, in the language and the colours of now. */
function drawAll() {
  translate(document);
  document.title = `${w("dashboard")} · Penstock`;
  repaint();
  /** @type {HTMLElement} */ (document.querySelector(".windows")).replaceChildren(...MINUTES.map((minutes) =>
    h("a", { class: "chip", href: address({ ...view, minutes }), "aria-current": view.minutes === minutes ? "true" : null, text: w(/** @type {any} */ (`window_${minutes}`)) })));
  const pause = byId("pause");
  pause.setAttribute("aria-pressed", String(paused));
  pause.replaceChildren(icon(paused ? "play" : "pause"), h("span", { text: w(paused ? "go_on" : "pause") }));
  streams.names(view);
  charts.minutes = view.minutes;
  charts.rebuild();
  drawLive();
  draw();
  page.draw();
}

function drawTheme() {
  const theme = preferences.get("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

// --- where we are, and wiring -----------------------------------------------------------------------

/** Look at something else of the overview, and keep that in the address. @param {Partial<typeof view>} change */
function look(change) {
  history.replaceState(null, "", address({ ...view, ...change }));
  view = { ...view, ...change };
  feed.ask(question(view));
  drawAll();
}

async function route() {
  const asked = parse(location.hash);
  byId("overview").hidden = Boolean(asked.stream);
  if (asked.stream) {
    page.back = address(view);
    await page.open(asked.stream);
  } else {
    page.close();
    look(asked);
  }
  scrollTo(0, 0);
}

/** Let what is shown stand still, or go on. */
function toggle() {
  paused = !paused;
  drawAll();
  say(w(paused ? "live_paused" : "live"));
}

async function otherKey() {
  if (await askAgain(t("key_wanted"))) feed.again();
}

for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-icon]"))) {
  element.prepend(icon(/** @type {any} */ (element.dataset.icon)));
}
byId("find").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const input = byId("find-stream");
  const id = input.value.trim().split("~")[0];
  input.setCustomValidity(/^[\w.-]{20,64}$/.test(id) ? "" : w("not_an_id"));
  if (input.reportValidity()) {
    location.hash = `#/s/${id}`;
    input.value = "";
  }
});
byId("find-stream").addEventListener("input", () => byId("find-stream").setCustomValidity(""));
byId("pause").addEventListener("click", toggle);
byId("key-button").addEventListener("click", () => void otherKey());
byId("theme-button").addEventListener("click", (/** @type {any} */ event) => openMenu(event.currentTarget, ["", "light", "dark"].map((theme) => ({
  label: t(/** @type {any} */ (`theme_${theme || "system"}`)), shape: preferences.get("theme") === theme ? "check" : undefined, run: () => preferences.set({ theme }),
}))));
byId("language-button").addEventListener("click", (/** @type {any} */ event) => openMenu(event.currentTarget, Object.entries(LANGUAGES).map(([code, name]) => ({
  label: name, shape: code === language() ? "check" : undefined, run: () => preferences.set({ language: code }),
}))));
preferences.addEventListener("change", (/** @type {any} */ { detail }) => {
  if (detail === "theme") drawTheme();
  else if (detail === "language") setLanguage(preferences.get("language"));
  else return;
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
addEventListener("hashchange", () => void route());
addEventListener("keydown", (event) => {
  const typing = /** @type {HTMLElement} */ (event.target).matches?.("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "/") {
    event.preventDefault();
    byId("find-stream").focus();
  } else if (event.key === "p") toggle();
  else if (event.key === "f" && !page.stream) {
    event.preventDefault();
    byId("filter").focus();
  } else if (event.key === "Escape" && page.stream) location.hash = page.back;
});

feed.ask(question(view));
drawAll();
void feed.run();
await route();
document.documentElement.dataset.ready = "true";
