// @ts-check
// Markdown that is rendered while it is written.
//
// Only the last blocks of a growing text can change, so only those are parsed and drawn again: a
// frame costs the same at the end of a long answer as at its beginning. What is not finished yet (an
// open fence, half a link, the head of a table) is completed for the moment by `mend`. At the end the
// whole is parsed once more, and blocks that then read differently are drawn anew.
//
// Whatever a model writes is hostile. HTML in it is shown as it was written, but for a few tags that
// only form text; what then is HTML goes through DOMPurify; and the page's policy lets nothing run that
// is not ours. Images from elsewhere are never fetched: they become links.

import hljs from "./vendor/highlight.min.js";
import { Lexer, Marked } from "./vendor/marked.esm.js";
import createPurifier from "./vendor/purify.es.mjs";
import { copyText, h, iconButton } from "./dom.js";
import { t } from "./i18n.js";

/** Blocks at the end that may still change. */
const UNSETTLED = 2;
const HIGHLIGHT_LIVE = 6_000;
const HIGHLIGHT_EVERY = 400;
const HIGHLIGHT_AT_MOST = 200_000;

/** Tags that may stand in an answer; from HTML of its own, without any attribute. */
const SIMPLE = new Set([
  "b", "blockquote", "br", "cite", "code", "dd", "del", "details", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5",
  "h6", "hr", "i", "ins", "kbd", "li", "mark", "ol", "p", "pre", "q", "s", "samp", "small", "strong", "sub",
  "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var",
]);
const ATTRIBUTES = ["align", "alt", "class", "href", "src", "start", "title"];
const PURIFY = /** @type {any} */ ({
  ALLOWED_TAGS: [...SIMPLE, "a", "img", "span"],
  ALLOWED_ATTR: ATTRIBUTES,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp|avif);base64,)/i,
  RETURN_DOM_FRAGMENT: true,
});

const purifier = /** @type {any} */ (createPurifier)(window);
purifier.addHook("beforeSanitizeAttributes", (/** @type {any} */ node) => {
  // An image that was merely imported into the page would already be fetched.
  if (node.nodeName === "IMG" && !/^data:image\//i.test(node.getAttribute("src") ?? "")) node.remove();
});
purifier.addHook("uponSanitizeAttribute", (/** @type {any} */ _node, /** @type {any} */ data) => {
  // The page's own classes are not for answers.
  if (data.attrName === "class" && !/^(language-[\w+#.-]+|hljs-[\w -]+)$/.test(data.attrValue)) data.keepAttr = false;
});
purifier.addHook("afterSanitizeAttributes", (/** @type {any} */ node) => {
  if (node.nodeName !== "A") return;
  if (!/^(https?|mailto):/i.test(node.getAttribute("href") ?? "")) {
    // What is relative would lead into the gateway itself, whose GET /stream starts an answer.
    node.removeAttribute("href");
    return;
  }
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

const marked = new Marked({
  gfm: true,
  renderer: {
    html: (/** @type {{text: string}} */ { text }) => simpleHtml(text),
    // Below the page's title and the question, for whoever goes from heading to heading.
    heading(/** @type {{tokens: any[], depth: number}} */ { tokens, depth }) {
      const level = Math.min(6, depth + 2);
      return `<h${level}>${/** @type {any} */ (this).parser.parseInline(tokens)}</h${level}>\n`;
    },
    image: (/** @type {{href: string, text: string}} */ { href, text }) => imageHtml(href, text),
    checkbox: (/** @type {{checked: boolean}} */ { checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** @param {string} text */
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** HTML that a model wrote: simple tags are kept, the rest becomes text. @param {string} html */
function simpleHtml(html) {
  const parts = html.split(/(<\/?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?\/?>)/);
  return parts.map((part, index) => {
    if (index % 2 === 0) return part.replaceAll("<", "&lt;");
    const [, slash, name] = /** @type {RegExpExecArray} */ (/^<(\/?)([a-zA-Z0-9]+)/.exec(part));
    if (SIMPLE.has(name.toLowerCase())) return `<${slash}${name}>`;
    const source = /^img$/i.test(name) && /\ssrc\s*=\s*["']?(https?:[^"'\s<>]+)/i.exec(part);
    const alternative = /\salt\s*=\s*"([^"<>]*)"/i.exec(part);
    return source ? imageHtml(source[1], alternative ? alternative[1] : "") : escaped(part);
  }).join("");
}

/** @param {string} address @param {string} text */
function imageHtml(address, text) {
  if (/^data:image\//i.test(address)) return `<img src="${escaped(address)}" alt="${escaped(text)}">`;
  const words = `${t("image")}: ${text || address}`;
  return /^https?:/i.test(address) ? `<a href="${escaped(address)}">${escaped(words)}</a>` : escaped(words);
}

/**
 * Complete what is only begun at the end of a text. Pure.
 * @param {string} text
 */
export function mend(text) {
  const fences = [...text.matchAll(/^[ \t]*(?:(?:[-*+]|\d+[.)]|>)[ \t]+)*(```+|~~~+)/gm)];
  /** @type {string} */
  let open = "";
  for (const [, fence] of fences) {
    if (!open) open = fence;
    else if (fence[0] === open[0] && fence.length >= open.length) open = "";
  }
  if (open) return text.replace(/\n {0,3}[`~]{1,2}$/, "\n");
  const cut = text.includes("\n\n") ? text.lastIndexOf("\n\n") + 2 : 0;
  let tail = text.slice(cut);
  // A lone mark on the last line would make a heading, a list or a rule of what it is not yet.
  tail = tail.replace(/(^|\n)[ \t]*([-=_*+]+|\d{1,3}[.)]?|#{1,6}|>|[`~]{1,2})[ \t]*$/, "$1");
  tail = mendTable(tail);
  if ((tail.match(/`+/g) ?? []).length % 2) return text.slice(0, cut) + closeMarks(tail);
  tail = tail.replace(/<\/?[a-zA-Z][^>\n]*$|<$/, "");
  // Half a link or image: its words, until its address is whole.
  tail = tail.replace(/!?\[([^\]\n]*)\]\([^)\n]*$/, "$1").replace(/!?\[([^\]\n]*)$/, "$1");
  return text.slice(0, cut) + closeMarks(tail);
}

/** @param {string} tail */
function mendTable(tail) {
  const lines = tail.split("\n");
  const at = lines.findIndex((line) => /^\s*\|/.test(line));
  if (at < 0) return tail;
  const rest = lines.length - at;
  const row = lines[at].trim();
  const columns = row.replace(/^\||\|$/g, "").split(/(?<!\\)\|/).length;
  const rule = `|${" --- |".repeat(columns)}`;
  if (rest === 1) return row.length > 1 ? `${tail}\n${rule}` : lines.slice(0, at).join("\n");
  if (rest === 2 && /^[\s|:-]*$/.test(lines[at + 1])) return [...lines.slice(0, at + 1), rule].join("\n");
  return tail;
}

/** Close emphasis and code that the last lines leave open. @param {string} tail */
function closeMarks(tail) {
  const ticks = tail.match(/`+/g) ?? [];
  if (ticks.length % 2) {
    const last = /** @type {string} */ (ticks.at(-1));
    return tail.endsWith(last) ? tail.slice(0, -last.length) : tail + last;
  }
  const plain = tail.replace(/`+[^`]*`+/g, "").replace(/\\./g, "");
  let closing = "";
  for (const mark of ["**", "~~"]) {
    if (plain.split(mark).length % 2 === 0) {
      if (tail.endsWith(mark)) return tail.slice(0, -2);
      closing += mark;
    }
  }
  const single = plain.replaceAll("**", "").replace(/^\s*\* /gm, "");
  if ((single.match(/(?<![\s*])\*|\*(?![\s*])/g) ?? []).length % 2) {
    if (tail.endsWith("*")) return tail.slice(0, -1);
    closing = `*${closing}`;
  }
  return closing ? tail.replace(/\s*$/, "") + closing : tail;
}

/** @typedef {{raw: string, type: string, element: HTMLElement, painted: number}} Block */

/** The blocks of one text, in `element`. */
export class MarkdownView {
  /** @type {Block[]} */
  #blocks = [];
  #settled = 0;
  #offset = 0;
  #text = "";
  /** Definitions in what is settled. @type {Record<string, any>} */
  #links = {};
  #whole = false;
  /** How many blocks were drawn so far, for measuring. */
  drawn = 0;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
  }

  /**
   * Show `text`, which grows. `open`: it is not at its end; `unfinished`: its end never came.
   * @param {string} text @param {boolean} open @param {boolean} [unfinished]
   */
  update(text, open, unfinished = false) {
    if (text === this.#text && this.#whole === !open) return;
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    if (!text.startsWith(this.#text.slice(0, this.#offset))) this.#clear();
    this.#text = text;
    this.#whole = !open;
    if (!open) {
      this.#draw(0, unfinished ? mend(text) : text, open);
      return;
    }
    const rest = text.slice(this.#offset);
    const tokens = this.#draw(this.#settled, mend(rest), open);
    this.#settle(tokens, rest);
  }

  /** @param {number} from  the first block that is drawn @param {string} source @param {boolean} open */
  #draw(from, source, open) {
    const lexer = /** @type {any} */ (new Lexer(marked.defaults));
    if (open) Object.assign(lexer.tokens.links, this.#links);
    const tokens = lexer.lex(source);
    // A definition that came late changes blocks that were drawn before it.
    const anew = !open && Object.keys(lexer.tokens.links).length > 0;
    const shown = tokens.filter((/** @type {any} */ token) => token.type !== "space" && token.type !== "def");
    shown.forEach((/** @type {any} */ token, /** @type {number} */ index) => {
      const last = open && index === shown.length - 1;
      this.#block(from + index, token, last, anew);
    });
    for (const block of this.#blocks.splice(from + shown.length)) block.element.remove();
    return tokens;
  }

  /** @param {number} index @param {any} token @param {boolean} open @param {boolean} anew */
  #block(index, token, open, anew) {
    const known = this.#blocks[index];
    if (known && known.raw === token.raw && known.type === token.type && !anew && (open || known.painted === Infinity)) return;
    if (known && known.type === "code" && token.type === "code" && open && growCode(known, token)) return;
    const element = known?.element ?? h("div", { class: "block" });
    if (!known) this.element.append(element);
    const fragment = purifier.sanitize(marked.parser([token]), PURIFY);
    const painted = finish(fragment, open);
    element.replaceChildren(fragment);
    this.drawn += 1;
    this.#blocks[index] = { raw: token.raw, type: token.type, element, painted: open ? painted : Infinity };
  }

  /** Leave behind what cannot change any more. @param {any[]} tokens @param {string} rest */
  #settle(tokens, rest) {
    let keep = tokens.length;
    for (let blocks = 0; keep > 0 && blocks < UNSETTLED; ) {
      keep -= 1;
      if (tokens[keep].type !== "space" && tokens[keep].type !== "def") blocks += 1;
    }
    const settled = tokens.slice(0, keep);
    const length = settled.reduce((sum, token) => sum + token.raw.length, 0);
    if (!length || !rest.startsWith(settled.map((token) => token.raw).join(""))) return;
    this.#offset += length;
    for (const { type, tag, href, title } of settled) if (type === "def") this.#links[tag] ??= { href, title };
    this.#settled += settled.filter((token) => token.type !== "space" && token.type !== "def").length;
  }

  #clear() {
    this.#blocks = [];
    this.#settled = this.#offset = 0;
    this.#links = {};
    this.element.replaceChildren();
  }
}

/** Give a fragment its code blocks, tables and links. @param {DocumentFragment} fragment @param {boolean} open */
function finish(fragment, open) {
  let painted = Infinity;
  for (const pre of fragment.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    if (!code) continue;
    const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
    // marked ends code with a line end that nobody wrote.
    code.textContent = (code.textContent ?? "").replace(/\n$/, "");
    const figure = h("figure", { class: "code" },
      h("figcaption", {}, h("span", { class: "language", text: language }),
        iconButton("copy", t("copy_code"), (event) => void copied(event, code.textContent ?? ""), { class: "small" })));
    pre.replaceWith(figure);
    figure.append(pre);
    if (!open || (code.textContent ?? "").length < HIGHLIGHT_LIVE) paint(code, language);
    painted = performance.now();
  }
  for (const table of fragment.querySelectorAll("table")) {
    const scroller = h("div", { class: "table" });
    table.replaceWith(scroller);
    scroller.append(table);
  }
  return painted;
}

/** Add to a code block that is being written, without drawing it again. @param {Block} block @param {any} token */
function growCode(block, token) {
  const code = block.element.querySelector("code");
  const language = block.element.querySelector(".language")?.textContent ?? "";
  const before = code?.textContent ?? "";
  const now = String(token.text);
  if (!code || ((token.lang ?? "").match(/\S*/)?.[0] ?? "") !== language || !now.startsWith(before)) return false;
  block.raw = token.raw;
  if (now === before) return true;
  code.append(now.slice(before.length));
  if (now.length < HIGHLIGHT_LIVE || performance.now() - block.painted > HIGHLIGHT_EVERY * Math.ceil(now.length / 20_000)) {
    if (now.length < 10 * HIGHLIGHT_LIVE) paint(code, language);
    block.painted = performance.now();
  }
  return true;
}

/** Colour code, if its language is known. @param {HTMLElement} code @param {string} language */
function paint(code, language) {
  const text = code.textContent ?? "";
  if (!hljs.getLanguage(language) || text.length > HIGHLIGHT_AT_MOST) return;
  const html = hljs.highlight(text, { language, ignoreIllegals: true }).value;
  code.replaceChildren(purifier.sanitize(html, { ...PURIFY, ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"] }));
}

/** Copy, and say so on the button for a moment. @param {MouseEvent} event @param {string} text */
export async function copied(event, text) {
  const button = /** @type {HTMLElement} */ (event.currentTarget);
  if (!(await copyText(text))) return;
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1_500);
}

/** Let keyboards scroll what is too wide. @param {HTMLElement} element */
export function reachable(element) {
  for (const box of /** @type {NodeListOf<HTMLElement>} */ (element.querySelectorAll("pre, div.table"))) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}
