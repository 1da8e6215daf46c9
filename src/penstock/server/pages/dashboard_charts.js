// @ts-check
// Charts over time, drawn by uPlot in the page's own colours. What a chart shows is also said in words.

import { h } from "./dom.js";
import { language, number } from "./i18n.js";
import { span, w } from "./dashboard_words.js";
import uPlot from "./vendor/uplot.esm.js";

const HEIGHT = 150;

/** @typedef {import("./dashboard_feed.js").Point} Point */
/** @typedef {{key: keyof Point, words: any, colour: string, fill?: boolean}} Series */

/** @type {{title: any, ms: boolean, series: Series[]}[]} */
const CHARTS = [
  { title: "chart_streams", ms: false, series: [
    { key: "started", words: "series_started", colour: "--strip-text", fill: true },
    { key: "failed", words: "series_failed", colour: "--strip-cut", fill: true },
    { key: "open", words: "series_open", colour: "--strip-tool" } ] },
  { title: "chart_tokens", ms: false, series: [{ key: "tokens", words: "series_tokens", colour: "--strip-text", fill: true }] },
  { title: "chart_first", ms: true, series: [
    { key: "first50", words: "p50", colour: "--strip-text" },
    { key: "first95", words: "p95", colour: "--strip-reasoning" } ] },
  { title: "chart_gaps", ms: true, series: [
    { key: "gap50", words: "p50", colour: "--strip-text" },
    { key: "gap99", words: "p99", colour: "--strip-reasoning" } ] },
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

export class Charts {
  /** @type {{plot: any, figure: HTMLElement, legend: HTMLElement, chart: (typeof CHARTS)[number]}[]} */
  #charts = [];
  #observer = new ResizeObserver(() => this.#resize());

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    this.minutes = 2;
    this.#observer.observe(place);
  }

  /** Draw everything anew: another language, other colours. */
  rebuild() {
    for (const { plot } of this.#charts) plot.destroy();
    this.#charts = CHARTS.map((chart) => {
      const legend = h("p", { class: "legend-line" });
      const canvas = h("div", { class: "plot" });
      const figure = h("div", { class: "card chart", role: "img" }, h("p", { class: "title", text: w(chart.title) }), legend, canvas);
      return { figure, legend, chart, canvas, plot: null };
    });
    this.place.replaceChildren(...this.#charts.map((one) => one.figure));
    for (const one of this.#charts) one.plot = this.#plot(one.chart, /** @type {any} */ (one).canvas);
  }

  /** @param {(typeof CHARTS)[number]} chart @param {HTMLElement} place */
  #plot(chart, place) {
    const soft = paint("--soft");
    const line = paint("--line");
    const value = (/** @type {number} */ one) => (chart.ms ? span(one) : number(one, one < 10 ? 1 : 0));
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return new /** @type {any} */ (uPlot)({
      width: place.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: true }, y: { range: (/** @type {any} */ _u, /** @type {number} */ _low, /** @type {number} */ high) => [0, Math.max(chart.ms ? 10 : 1, (high || 0) * 1.08)] } },
      axes: [
        { ...axis, size: 24, space: 64, values: (/** @type {any} */ _u, /** @type {number[]} */ at) => at.map((one) => new Date(one * 1000).toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit", second: this.minutes < 10 ? "2-digit" : undefined, hourCycle: "h23" })) },
        { ...axis, size: 62, space: 34, values: (/** @type {any} */ _u, /** @type {number[]} */ at) => at.map(value) },
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
    const shown = points.filter((point) => point.t >= from);
    const last = shown.at(-1);
    for (const { plot, legend, figure, chart } of this.#charts) {
      const data = [shown.map((point) => point.t), ...chart.series.map((one) => shown.map((point) => point[one.key]))];
      plot.setData(data, false);
      plot.setScale("x", { min: from, max: now });
      const parts = chart.series.map((one) => {
        const of = [...shown].reverse().find((point) => point[one.key] !== null)?.[one.key] ?? null;
        const value = of === null ? "–" : chart.ms ? span(of) : number(of, of < 10 ? 1 : 0);
        return { words: label(one.words), value, colour: one.colour };
      });
      legend.replaceChildren(...parts.map((part) => {
        const dot = h("span", { class: "dot" });
        dot.style.background = `var(${part.colour})`;
        return h("span", {}, dot, `${part.words} ${part.value}`);
      }));
      figure.setAttribute("aria-label", `${w(chart.title)}: ${last ? parts.map((part) => `${part.words} ${part.value}`).join(", ") : w("no_points")}`);
    }
  }

  #resize() {
    for (const { plot, figure } of this.#charts) {
      const width = figure.querySelector(".plot")?.clientWidth ?? 0;
      if (width && plot && plot.width !== width) plot.setSize({ width, height: HEIGHT });
    }
  }
}

/** Bars of characters a second: one stream's last minute. */
export class RowStrip {
  /** @type {number[]} */
  marks = [];
  #before = -1;

  constructor() {
    this.canvas = h("canvas", { class: "row-strip", role: "img", "aria-label": "" });
  }

  /** @param {import("./dashboard_feed.js").Row} row */
  add(row) {
    this.marks.push(this.#before < 0 ? Math.min(row.characters, row.age <= 1.5 ? row.characters : 0) : Math.max(0, row.characters - this.#before));
    this.#before = row.characters;
    if (this.marks.length > 60) this.marks.shift();
    this.canvas.setAttribute("aria-label", w("strip_row", { count: this.marks.reduce((sum, one) => sum + one, 0) }));
  }

  draw() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    const scale = Math.min(devicePixelRatio || 1, 3);
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const step = width / 60;
    pen.fillStyle = paint("--strip-line");
    pen.fillRect(0, height - 1, width, 1);
    const ink = paint("--strip-text");
    this.marks.forEach((mark, index) => {
      if (!mark) return;
      const x = width - (this.marks.length - index) * step;
      const tall = 3 + (height - 4) * Math.min(1, Math.log2(1 + mark) / 11);
      pen.fillStyle = ink;
      pen.fillRect(x, height - 1 - tall, Math.max(1.2, step - 0.6), tall);
    });
  }
}
