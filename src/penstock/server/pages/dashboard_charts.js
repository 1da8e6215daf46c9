// @ts-check
// Charts over time, drawn by uPlot in the page's own colours. What a chart shows is also said in words.

import { h } from "./dom.js";
import { language, number } from "./i18n.js";
import { span, w } from "./dashboard_words.js";
import { morph } from "./morph.js";
import uPlot from "./vendor/uplot.esm.js";

const HEIGHT = 118;
/** Points that are drawn; of more, several become one. */
const MAX_DRAWN = 240;
/** A scale stays until what is shown is higher, or lower than this share of it. */
const SHRINK = 0.4;
const STEPS = [1, 1.5, 2, 3, 4, 5, 6, 8, 10];

/** @typedef {import("./dashboard_feed.js").Point} Point */
/** @typedef {{key: keyof Point, words: any, colour: string, fill?: boolean, worst?: boolean}} Series */
/** @typedef {{title: any, ms: boolean, series: Series[]}} Chart */

/** @type {Chart[]} */
const CHARTS = [
  { title: "chart_open", ms: false, series: [
    { key: "open", words: "series_open", colour: "--strip-text", fill: true },
    { key: "readers", words: "series_readers", colour: "--strip-tool" } ] },
  { title: "chart_streams", ms: false, series: [
    { key: "started", words: "series_started", colour: "--strip-text", fill: true },
    { key: "cancelled", words: "series_cancelled", colour: "--strip-heartbeat" },
    { key: "failed", words: "series_failed", colour: "--strip-cut", fill: true } ] },
  { title: "chart_tokens", ms: false, series: [{ key: "tokens", words: "series_tokens", colour: "--strip-text", fill: true }] },
  { title: "chart_first", ms: true, series: [
    { key: "first50", words: "p50", colour: "--strip-text", worst: true },
    { key: "first95", words: "p95", colour: "--strip-reasoning", worst: true } ] },
  { title: "chart_gaps", ms: true, series: [
    { key: "gap50", words: "p50", colour: "--strip-text", worst: true },
    { key: "gap99", words: "p99", colour: "--strip-reasoning", worst: true } ] },
  { title: "chart_rescues", ms: false, series: [
    { key: "retries", words: "series_retries", colour: "--strip-heartbeat" },
    { key: "fallbacks", words: "series_fallbacks", colour: "--strip-reasoning" },
    { key: "continuations", words: "series_continuations", colour: "--strip-tool" } ] },
];

/** Colours as canvas understands them, until the page has others. @type {Map<string, string>} */
const painted = new Map();

/** @param {string} name @param {number} [alpha] */
export function paint(name, alpha = 1) {
  const key = `${name} ${alpha}`;
  const known = painted.get(key);
  if (known) return known;
  const probe = h("span", {});
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  let found = getComputedStyle(probe).color;
  probe.remove();
  if (alpha !== 1) {
    const parts = found.match(/[\d.]+/g) ?? ["0", "0", "0"];
    found = `rgba(${parts[0]}, ${parts[1]}, ${parts[2]}, ${alpha})`;
  }
  painted.set(key, found);
  return found;
}

/** The page has other colours now. */
export function repaint() {
  painted.clear();
}

/** @param {any} words */
const label = (words) => (String(words).startsWith("series_") ? w(words) : String(words));

/** A round number that is at least `value`. @param {number} value */
export function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return (STEPS.find((step) => step * power >= value * 0.9999) ?? 10) * power;
}

/** The points since `from`, `MAX_DRAWN` at most: those of one span become one, which has the worst time and
 * the mean of the rest. @param {Point[]} points @param {number} from @param {number} to */
export function condensed(points, from, to) {
  const shown = points.filter((point) => point.t >= from);
  if (shown.length <= MAX_DRAWN * 1.25) return shown;
  const span = (to - from) / MAX_DRAWN;
  /** @type {Map<number, Point[]>} */
  const spans = new Map();
  for (const point of shown) {
    const at = Math.floor(point.t / span);
    const some = spans.get(at);
    if (some) some.push(point);
    else spans.set(at, [point]);
  }
  return [...spans.values()].map((some) => {
    const one = /** @type {any} */ ({ ...some[some.length - 1] });
    for (const { key, worst } of CHARTS.flatMap((chart) => chart.series)) {
      const values = some.map((point) => point[key]).filter((value) => value !== null && value !== undefined);
      one[key] = !values.length ? null : worst ? Math.max(.../** @type {number[]} */ (values)) : /** @type {number[]} */ (values).reduce((sum, value) => sum + value, 0) / values.length;
    }
    return one;
  });
}

/** @typedef {{plot: any, figure: HTMLElement, legend: HTMLElement, chart: Chart, place: HTMLElement, top: number}} Drawn */

export class Charts {
  /** @type {Drawn[]} */
  #charts = [];
  /** @type {Point[]} */
  #shown = [];
  #observer = new ResizeObserver(() => this.#resize());

  /** @param {HTMLElement} place @param {(words: string) => void} say  to who hears the page */
  constructor(place, say) {
    this.place = place;
    this.say = say;
    this.minutes = 2;
    this.#observer.observe(place);
  }

  /** Draw everything anew: another language, other colours, another span. */
  rebuild() {
    for (const { plot } of this.#charts) plot.destroy();
    this.#charts = CHARTS.map((chart) => {
      const legend = h("p", { class: "legend-line" });
      const place = h("div", { class: "plot" });
      const figure = h("div", { class: "card chart", role: "img", tabindex: 0 }, h("p", { class: "title", text: w(chart.title) }), legend, place);
      const drawn = { figure, legend, chart, place, plot: null, top: 0 };
      figure.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#walk(event, drawn));
      figure.addEventListener("blur", () => this.#point(drawn, -1));
      return drawn;
    });
    this.place.replaceChildren(...this.#charts.map((one) => one.figure));
    for (const one of this.#charts) one.plot = this.#plot(one);
  }

  /** @param {Drawn} drawn */
  #plot(drawn) {
    const { chart, place } = drawn;
    const soft = paint("--soft");
    const axis = { stroke: soft, grid: { stroke: paint("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const value = (/** @type {number} */ one) => (chart.ms ? (one >= 1_000 ? `${number(one / 1_000, 1)} s` : `${number(one)} ms`) : number(one, one < 10 ? 1 : 0));
    return new /** @type {any} */ (uPlot)({
      width: place.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false, setScale: false }, sync: { key: "dashboard" }, points: { size: 6 } },
      hooks: { setCursor: [() => this.#tell(drawn)] },
      scales: { x: { time: true }, y: { range: () => [0, drawn.top || 1] } },
      axes: [
        { ...axis, size: 24, space: 64, values: (/** @type {any} */ u, /** @type {number[]} */ at) => at.map((one) => (u.scales.x.max - one < this.minutes * 4 ? "" : clock(one, this.minutes < 10))) },  // there is no room at the edge
        { ...axis, size: 52, space: 30, values: (/** @type {any} */ _u, /** @type {number[]} */ at) => at.map(value) },
      ],
      series: [{}, ...chart.series.map((one) => ({
        label: label(one.words), stroke: paint(one.colour), width: 1.6, spanGaps: true, points: { show: false },
        fill: one.fill ? paint(one.colour, 0.12) : undefined,
      }))],
    }, [[], ...chart.series.map(() => [])], place);
  }

  /** @param {Point[]} points  oldest first */
  update(points) {
    const now = points.at(-1)?.t ?? Date.now() / 1000;
    const from = now - this.minutes * 60;
    this.#shown = condensed(points, from, now);
    for (const one of this.#charts) {
      const values = one.chart.series.map(({ key }) => this.#shown.map((point) => point[key] ?? null));
      let most = one.chart.ms ? 10 : 1;
      for (const series of values) for (const value of series) if (value !== null && value > most) most = value;
      if (most > one.top || most < one.top * SHRINK) one.top = round(most);
      one.plot.setData([this.#shown.map((point) => point.t), ...values], false);
      one.plot.setScale("x", { min: from, max: now });
      this.#tell(one);
    }
  }

  /** Say what is under the cursor, or else what was last. @param {Drawn} drawn */
  #tell({ plot, legend, figure, chart }) {
    const at = plot?.cursor.idx ?? null;
    const point = at === null ? null : this.#shown[at];
    const parts = chart.series.map((one) => {
      const of = point ? point[one.key] ?? null : [...this.#shown].reverse().find((some) => (some[one.key] ?? null) !== null)?.[one.key] ?? null;
      const value = of === null ? "–" : chart.ms ? span(of) : number(of, of < 10 || point ? 1 : 0);
      return { words: label(one.words), value, colour: one.colour };
    });
    morph(legend, ...parts.map((part) => {
      const dot = h("span", { class: "dot" });
      dot.style.background = `var(${part.colour})`;
      return h("span", {}, dot, `${part.words} ${part.value}`);
    }), point ? h("time", { text: clock(point.t, true) }) : null);
    const said = `${w(chart.title)}${point ? `, ${clock(point.t, true)}` : ""}: ${this.#shown.length ? parts.map((part) => `${part.words} ${part.value}`).join(", ") : w("no_points")}`;
    if (figure.getAttribute("aria-label") !== said) figure.setAttribute("aria-label", said);
    return said;
  }

  /** Walk over the points by keys. @param {KeyboardEvent} event @param {Drawn} drawn */
  #walk(event, drawn) {
    const last = this.#shown.length - 1;
    const at = drawn.plot.cursor.idx ?? last + 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.say(this.#point(drawn, Math.max(0, Math.min(last, to))));
  }

  /** Put the cursor at a point; at none with -1. @param {Drawn} drawn @param {number} index */
  #point(drawn, index) {
    const { plot } = drawn;
    const left = index < 0 ? -10 : plot.valToPos(this.#shown[index].t, "x");
    plot.setCursor({ left, top: index < 0 ? -10 : 1 }, true, true);
    return this.#tell(drawn);
  }

  #resize() {
    for (const { plot, place } of this.#charts) {
      const width = place.clientWidth;
      if (width && plot && plot.width !== width) plot.setSize({ width, height: HEIGHT });
    }
  }
}

/** @param {number} at @param {boolean} seconds */
function clock(at, seconds) {
  return new Date(at * 1000).toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hourCycle: "h23" });
}
