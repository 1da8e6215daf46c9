// @ts-check
// The dashboard put together: the feed, the figures, charts and tables that are drawn from it.
// `#/` is the overview, `#/s/<stream>` one stream's own page.

import { Api, Key } from "./api.js";
import { askForKey } from "./dialogs.js";
import { byId, h, icon, openMenu } from "./dom.js";
import { language, LANGUAGES, number, setLanguage, t, translate } from "./i18n.js";
import { Charts, repaint, RowStrip } from "./dashboard_charts.js";
import { Feed } from "./dashboard_feed.js";
import { barRow, status, StreamPage } from "./dashboard_stream.js";
import { named, span, usd, w } from "./dashboard_words.js";
import { Preferences } from "./preferences.js";

/** Points and rows that are kept: an hour of seconds, and lists of what lately was. */
const MAX_POINTS = 3_600;
const MAX_LISTED = 30;
const MINUTES = [2, 15, 60];

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
const charts = new Charts(byId("charts"));
const page = new StreamPage(api, byId("stream"));

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
/** @type {Map<string, RowStrip>} */
let strips = new Map();

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
  happened = detail.happened.reverse().slice(0, MAX_LISTED);
  spend = detail.spend ?? spend;
  strips = new Map();
  drawLists();
});

feed.addEventListener("frame", (/** @type {any} */ { detail }) => {
  last = detail;
  points.push(detail.point);
  if (points.length > MAX_POINTS) points.splice(0, points.length - MAX_POINTS);
  if (detail.spend) spend = detail.spend;
  if (detail.ended.length) ended = [...detail.ended.reverse(), ...ended].slice(0, MAX_LISTED);
  if (detail.happened.length) {
    happened = [...detail.happened.reverse(), ...happened].slice(0, MAX_LISTED);
    const breaker = detail.happened.find((/** @type {any} */ one) => one.kind.startsWith("breaker"));
    if (breaker) byId("announcements").textContent = `${named("happened", breaker.kind)}: ${breaker.target}`;
  }
  const now = new Map();
  for (const row of detail.streams) {
    const strip = strips.get(row.id) ?? new RowStrip();
    strip.add(row);
    now.set(row.id, strip);
  }
  strips = now;
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
    drawFigures();
    charts.update(points);
    drawStreams();
    drawLists();
    drawTargets();
    drawCounts();
  }
  document.documentElement.dataset.frames = String(points.length);
}

function drawLive() {
  const { phase, until } = feed.state;
  const place = byId("live");
  const words = phase === "live"
    ? last?.unready === "draining" ? w("live_draining") : w("live")
    : phase === "lost" ? w("live_lost", { count: Math.max(0, Math.ceil((until - Date.now()) / 1000)) })
    : phase === "connecting" ? w("live_connecting") : "";
  if (place.textContent !== words) place.textContent = words;
  place.dataset.phase = phase;
  const refused = byId("refused");
  refused.hidden = phase !== "refused" && phase !== "off";
  if (!refused.hidden) {
    const name = phase === "off" ? "off" : "refused";
    refused.replaceChildren(h("h2", { text: w(`${name}_title`) }), h("p", { text: w(`${name}_about`) }),
      phase === "refused" ? h("button", { type: "button", class: "button primary", text: w("other_key"), onclick: () => void otherKey() }) : "");
  }
  document.body.classList.toggle("shut", !refused.hidden);
}

/** @param {string} name @param {string} value @param {string} about @param {string} [kind] */
function figure(name, value, about, kind = "") {
  return h("div", { class: `figure ${kind}` }, h("dt", { text: name }), h("dd", {}, h("b", { text: value }), h("span", { text: about })));
}

function drawFigures() {
  const { point, totals } = last;
  const lately = points.filter((one) => one.t > point.t - 60);
  const latest = (/** @type {"first50" | "first95" | "gap50" | "gap99"} */ name) => [...lately].reverse().find((one) => one[name] !== null)?.[name] ?? null;
  const share = totals.ended ? totals.failed / totals.ended : 0;
  byId("figures").replaceChildren(
    figure(w("open"), number(point.open), w("in_flight", { count: number(point.started, 1) })),
    figure(w("tokens_s"), number(point.tokens), w("estimated_live")),
    figure(w("first_output"), span(latest("first50")), `p95 ${span(latest("first95"))}`),
    figure(w("gap"), span(latest("gap50")), `p99 ${span(latest("gap99"))}`),
    figure(w("failed_share"), `${number(share * 100, share < 0.1 ? 1 : 0)} %`, w("of_ended", { failed: totals.failed, ended: totals.ended }), share > 0.05 ? "bad" : ""),
    figure(w("readers"), number(point.readers), point.lag ? w("lag", { count: point.lag }) : w("caught_up")),
    figure(w("spent"), usd(spend ? spend.key.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.cost_usd, 0) : null), ""),
  );
  byId("since").textContent = w("since", { when: new Date(totals.since * 1000).toLocaleString(language()), watchers: w("watchers", { count: last.watchers }) });
}

/** A table whose cells carry their column's name, for narrow screens. @param {[string, string][]} columns @param {any[][]} rows */
function table(columns, rows) {
  return h("table", { class: "stack" },
    h("thead", {}, h("tr", {}, ...columns.map(([name, kind]) => h("th", { scope: "col", class: kind, text: name })))),
    h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map((cell, index) => h("td", { class: columns[index][1], "data-name": columns[index][0] }, cell))))));
}

/** @param {string} id */
function link(id) {
  return h("a", { href: `#/s/${id}`, class: "mono", title: id, text: `…${id.slice(-8)}` });
}

function drawStreams() {
  const place = byId("streams");
  byId("streams-count").textContent = number(last.point.open);
  if (!last.streams.length) {
    place.replaceChildren(h("p", { class: "note", text: w("no_streams") }));
    return;
  }
  const focused = place.contains(document.activeElement) ? document.activeElement?.getAttribute("href") : "";
  const rows = last.streams.map((/** @type {any} */ one) => [
    link(one.id),
    h("span", {}, h("span", { class: "clip", title: one.model, text: one.model }), h("span", { class: "note block clip", title: one.principal, text: one.principal })),
    h("span", {}, h("span", { class: "clip wide-clip", title: one.target, text: one.target || "–" }), h("span", { class: "note block", text: [named("doing", one.doing), one.attempts > 1 ? w("attempt_n", { count: one.attempts }) : "", one.silent > 5 ? w("silent", { seconds: span(one.silent * 1000) }) : ""].filter(Boolean).join(" · ") })),
    strips.get(one.id)?.canvas ?? "",
    h("span", {}, span(one.age * 1000), h("span", { class: "note block", text: `${number(one.entries)} ${w("entries").toLowerCase()}` })),
    h("span", {}, number(one.readers), one.lag ? h("span", { class: "note block", text: w("lag", { count: one.lag }) }) : ""),
  ]);
  place.replaceChildren(
    table([[w("stream"), ""], [w("model"), ""], [w("target"), ""], [w("activity"), "strip-cell"], [w("age"), "number"], [w("readers"), "number"]], rows),
    last.more ? h("p", { class: "note", text: w("more_streams", { count: last.more }) }) : "");
  if (focused) /** @type {HTMLElement | null} */ (place.querySelector(`a[href="${focused}"]`))?.focus();
  for (const strip of strips.values()) strip.draw();
}

function drawLists() {
  byId("ended").replaceChildren(ended.length
    ? table([[w("stream"), ""], [w("model"), ""], [w("status"), ""], [w("took"), "number"], [w("tokens_out"), "number"], [w("cost"), "number"]],
      ended.slice(0, 12).map((one) => [
        link(one.id),
        h("span", {}, h("span", { class: "clip", title: one.model, text: one.model }), h("span", { class: "note block clip", text: one.principal })),
        h("span", {}, status(one.status, one.code), one.attempts > 1 ? h("span", { class: "note block", text: w("attempt_n", { count: one.attempts }) }) : ""),
        span(one.ms), number(one.tokens ?? 0), usd(one.cost_usd)]))
    : h("p", { class: "note", text: w("no_ended") }));
  byId("happened").replaceChildren(happened.length
    ? h("ul", { class: "rows" }, ...happened.slice(0, 12).map((one) => h("li", {},
      h("time", { class: "note", text: new Date(one.at * 1000).toLocaleTimeString(language(), { hourCycle: "h23" }) }), " ",
      h("b", { class: one.kind, text: named("happened", one.kind) }), " ",
      one.stream ? h("a", { href: `#/s/${one.stream}`, text: one.target || one.code }) : h("span", { text: one.target || one.code }))))
    : h("p", { class: "note", text: w("no_happened") }));
}

function drawTargets() {
  byId("targets").replaceChildren(last.targets.length
    ? h("ul", { class: "rows targets" }, ...last.targets.map((/** @type {any} */ one) => h("li", {},
      h("span", { class: `state ${one.state}`, text: named("breaker", one.state) }),
      h("b", { class: "clip", title: one.name, text: one.name }),
      h("span", { class: "note block", text: w("target_facts", { running: one.running, failed: one.failed, attempts: one.attempts }) }),
      one.first50 ? h("span", { class: "note block", text: w("target_first", { p50: span(one.first50), p95: span(one.first95) }) }) : "")))
    : h("p", { class: "note", text: w("no_targets") }));
}

/** @param {[string, number][]} counts @param {(name: string) => string} words @param {(value: number) => string} [value] @param {boolean} [states] */
function bars(counts, words, value = (one) => number(one), states = false) {
  const most = Math.max(...counts.map(([, count]) => count), 1e-12);
  return h("ul", { class: "bars" }, ...counts.map(([name, count]) => barRow(words(name), value(count), count / most, states ? name.split(":")[0] : "")));
}

function drawCounts() {
  const { endings, refusals, attempts } = last.totals;
  const sorted = (/** @type {any} */ counts) => /** @type {[string, number][]} */ (Object.entries(counts)).sort((a, b) => b[1] - a[1]);
  byId("endings").replaceChildren(
    Object.keys(endings).length ? bars(sorted(endings), (name) => name.replace(":", " · "), undefined, true) : h("p", { class: "note", text: w("no_endings") }),
    ...(Object.keys(refusals).length ? [h("h3", { text: w("refusals") }), bars(sorted(refusals), (name) => name)] : []));
  const order = ["first", "retry", "fallback", "continuation", "hedge"];
  byId("attempts").replaceChildren(bars(order.map((name) => [name, attempts[name] ?? 0]), (name) => named("reason", name)));
  const some = spend && (spend.key.length || spend.model.length);
  byId("spend").replaceChildren(...(some
    ? [["by_key", spend.key], ["by_model", spend.model]].flatMap(([title, sums]) => [h("h3", { text: w(title) }), bars(sums.map((/** @type {any} */ one) => [one.name || "–", one.cost_usd]), (name) => name, usd)])
    : [h("p", { class: "note", text: w("no_spend") })]));
}

/** Everything, in the language and the colours of now. */
function drawAll() {
  translate(document);
  document.title = `${w("dashboard")} · Penstock`;
  repaint();
  /** @type {HTMLElement} */ (document.querySelector(".windows")).replaceChildren(...MINUTES.map((minutes) =>
    h("button", { type: "button", class: "chip", "aria-pressed": String(charts.minutes === minutes), text: w(/** @type {any} */ (`window_${minutes}`)), onclick: () => {
      charts.minutes = minutes;
      drawAll();
    } })));
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

async function route() {
  const [, kind = "", name = ""] = location.hash.split("/");
  const one = kind === "s" && /^[\w.-]{1,64}$/.test(name);
  byId("overview").hidden = one;
  if (one) await page.open(name);
  else {
    page.close();
    drawAll();
  }
  scrollTo(0, 0);
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
  } else if (event.key === "Escape" && page.stream) location.hash = "#/";
});

drawAll();
void feed.run();
await route();
document.documentElement.dataset.ready = "true";
