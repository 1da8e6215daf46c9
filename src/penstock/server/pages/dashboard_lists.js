// @ts-check
// The overview's figures and lists: what there is and was, as words and bars.

import { byId, h } from "./dom.js";
import { language, number } from "./i18n.js";
import { barRow, status } from "./dashboard_stream.js";
import { link, sieve, table } from "./dashboard_streams.js";
import { address, fits, word } from "./dashboard_view.js";
import { named, span, usd, w } from "./dashboard_words.js";
import { morph } from "./morph.js";

const SHOWN = 12;
/** A share of failures that is worth a colour. */
const MANY = 0.05;

/** @typedef {import("./dashboard_view.js").View} View */

/** @param {string} name @param {string} value @param {string} about @param {string} [kind] */
function figure(name, value, about, kind = "") {
  return h("div", { class: `figure ${kind}` }, h("dt", { text: name }), h("dd", {}, h("b", { text: value }), h("span", { text: about })));
}

/** What was spent in a day: the ledger's sum, which is some seconds old, or what was counted since if that is more.
 * @param {any} totals @param {any} spend */
function spentOf(totals, spend) {
  if (!spend) return null;
  const told = spend.key.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.cost_usd, 0);
  return Date.now() / 1000 - totals.since < spend.hours * 3_600 ? Math.max(told, totals.cost_usd) : told;
}

/** @param {any} frame @param {any} spend */
export function drawFigures({ point, totals, lately, watchers }, spend) {
  const share = lately.ended ? lately.failed / lately.ended : 0;
  morph(byId("figures"),
    figure(w("open"), number(point.open), w("started_lately", { count: number(lately.started) })),
    figure(w("tokens_s"), number(point.tokens), w("estimated_live")),
    figure(w("first_output"), span(lately.first50), w("p95_lately", { span: span(lately.first95) })),
    figure(w("gap"), span(lately.gap50), w("p99_lately", { span: span(lately.gap99) })),
    figure(w("failed_share"), lately.ended ? `${number(share * 100, share && share < 0.1 ? 1 : 0)} %` : "–", w("of_ended", { failed: number(lately.failed), ended: number(lately.ended) }), share > MANY ? "bad" : ""),
    figure(w("readers"), number(point.readers), point.lag ? w("lag", { count: number(point.lag) }) : w("caught_up")),
    figure(w("spent"), usd(spentOf(totals, spend)), w("spent_since", { cost: usd(totals.cost_usd) })),
  );
  byId("since").textContent = w("since", { when: new Date(totals.since * 1000).toLocaleString(language()), watchers: w("watchers", { count: watchers }) });
}

/** @param {any[]} ended  the last first @param {View} view */
export function drawEnded(ended, view) {
  const found = view.q ? ended.filter(({ id, principal, model, target, status: state, code }) => fits(view.q, { id, principal, model, target, status: state, code })) : ended;
  morph(byId("ended"), found.length
    ? table([[w("stream"), ""], [w("model"), ""], [w("status"), ""], [w("took"), "number"], [w("tokens_out"), "number"], [w("cost"), "number"]],
      found.slice(0, SHOWN).map((one) => [one.id, [
        h("span", {}, link(one.id), h("span", { class: "note block", text: clock(one.at) })),
        h("span", {}, sieve(view, "model", one.model, "clip"), sieve(view, "principal", one.principal, "note block clip")),
        h("span", {}, status(one.status, one.code), one.attempts > 1 ? h("span", { class: "note block", text: w("attempts_n", { count: one.attempts }) }) : null),
        span(one.ms), number(one.tokens ?? 0), usd(one.cost_usd)]]))
    : h("p", { class: "note", text: ended.length ? w("none_match") : w("no_ended") }));
}

/** What was the same several times in a row stands there once. @param {any[]} happened  the last first */
export function drawHappened(happened) {
  /** @type {{one: any, count: number}[]} */
  const groups = [];
  const seen = new Map();
  for (const one of happened) {
    const key = `${one.kind} ${one.target} ${one.code}`;
    const known = seen.get(key);
    if (known) known.count += 1;
    else {
      seen.set(key, { one, count: 1 });
      groups.push(seen.get(key));
    }
  }
  morph(byId("happened"), groups.length
    ? h("ul", { class: "rows happened" }, ...groups.slice(0, SHOWN).map(({ one, count }) => h("li", {},
      h("time", { class: "note", datetime: new Date(one.at * 1000).toISOString(), text: clock(one.at) }),
      h("b", { class: one.kind, text: named("happened", one.kind) }),
      count > 1 ? h("span", { class: "count", title: w("times_lately", { count }), text: `× ${number(count)}` }) : null,
      one.stream ? h("a", { class: "clip", href: `#/s/${one.stream}`, title: one.target || one.code, text: one.target || one.code })
        : h("span", { class: "clip", title: one.target || one.code, text: one.target || one.code }))))
    : h("p", { class: "note", text: w("no_happened") }));
}

/** @param {any[]} targets @param {View} view */
export function drawTargets(targets, view) {
  morph(byId("targets"), targets.length
    ? h("ul", { class: "rows targets" }, ...targets.map((one) => h("li", { "data-key": one.name },
      h("span", { class: `state ${one.state}`, text: named("breaker", one.state) }),
      sieve(view, "target", one.name, "clip strong"),
      h("span", { class: "note block" }, w("target_running", { count: number(one.running) }), " · ",
        h("span", { class: one.failed > MANY * one.attempts ? "trouble" : "", text: w("target_failed", { failed: number(one.failed), attempts: number(one.attempts) }) })),
      one.first50 ? h("span", { class: "note block", text: w("target_first", { p50: span(one.first50), p95: span(one.first95) }) }) : null)))
    : h("p", { class: "note", text: w("no_targets") }));
}

/** @param {[string, number][]} counts @param {(name: string) => any} words @param {(value: number) => string} [value] @param {boolean} [states] */
function bars(counts, words, value = (one) => number(one), states = false) {
  const most = Math.max(...counts.map(([, count]) => count), 1e-12);
  return h("ul", { class: "bars" }, ...counts.map(([name, count]) => barRow(words(name), value(count), count / most, states ? name.split(":")[0] : "")));
}

/** @param {any} totals @param {any} spend @param {View} view */
export function drawCounts({ endings, refusals, attempts }, spend, view) {
  const sorted = (/** @type {any} */ counts) => /** @type {[string, number][]} */ (Object.entries(counts)).sort((a, b) => b[1] - a[1]);
  morph(byId("endings"),
    Object.keys(endings).length ? bars(sorted(endings), (name) => { const [state, code] = name.split(":"); return code && code !== state ? name.replace(":", " · ") : state; }, undefined, true) : h("p", { class: "note", text: w("no_endings") }),
    ...(Object.keys(refusals).length ? [h("h3", { text: w("refusals") }), bars(sorted(refusals), (name) => name)] : []));
  const order = ["first", "retry", "fallback", "continuation", "hedge"];
  morph(byId("attempts"), bars(order.map((name) => [name, attempts[name] ?? 0]), (name) => named("reason", name)));
  const some = spend && (spend.key.length || spend.model.length);
  morph(byId("spend"), ...(some
    ? /** @type {[string, string, any[]][]} */ ([["by_key", "principal", spend.key], ["by_model", "model", spend.model]]).flatMap(([title, field, sums]) => [
      h("h3", { text: w(/** @type {any} */ (title)) }),
      bars(sums.map((one) => [one.name || "–", one.cost_usd]), (name) => h("a", { class: "sieve", href: address({ ...view, q: word(field, name) }), title: name, text: name }), usd)])
    : [h("p", { class: "note", text: w("no_spend") })]));
}

/** @param {number} at */
function clock(at) {
  return new Date(at * 1000).toLocaleTimeString(language(), { hourCycle: "h23" });
}
