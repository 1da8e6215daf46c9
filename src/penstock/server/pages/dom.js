// @ts-check
// Making elements, icons and menus. Text always goes in as text: nothing here takes HTML.

/**
 * Make an element. `props`: attributes; `class`; `text`; `on…` handlers; `false`, `null` and
 * `undefined` leave an attribute out, `true` sets it empty.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element with this id; it must exist. @param {string} id @returns {any} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found;
}

const SHAPES = {
  plus: ["M12 5v14", "M5 12h14"],
  menu: ["M4 7h16", "M4 12h16", "M4 17h16"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  send: ["M12 19V5", "M6 11l6-6 6 6"],
  stop: ["M7 7h10v10H7z"],
  pause: ["M9 6v12", "M15 6v12"],
  play: ["M8 6l10 6l-10 6z"],
  copy: ["M9 9h10v11H9z", "M5 15V4h10"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  again: ["M20 5v5h-5", "M19.5 10A8 8 0 1 0 20 14"],
  edit: ["M4 20l1-4L16 5l3 3L8 19z", "M14 7l3 3"],
  trash: ["M5 7h14", "M10 7V5h4v2", "M7 7l1 13h8l1-13"],
  more: ["M5 11.500v1", "M5.500 12h-1", "M12 11.500v1", "M12.500 12h-1", "M19 11.500v1", "M19.500 12h-1"],
  link: ["M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1", "M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1"],
  down: ["M12 5v14", "M6 13l6 6 6-6"],
  left: ["M14.5 6l-6 6 6 6"],
  right: ["M9.5 6l6 6-6 6"],
  chevron: ["M6 9.5l6 6 6-6"],
  search: ["M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14z", "M16.5 16.5L21 21"],
  key: ["M8 12a4 4 0 1 0 0 8a4 4 0 0 0 0-8z", "M11 13l8-8", "M16 8l3 3"],
  sliders: ["M4 8h9", "M19 8h1", "M16 5.5a2.5 2.5 0 1 0 0 5a2.5 2.5 0 0 0 0-5z", "M4 16h1", "M11 16h9", "M8 13.5a2.5 2.5 0 1 0 0 5a2.5 2.5 0 0 0 0-5z"],
  flask: ["M10 4v6L4.5 19a1 1 0 0 0 .9 1.5h13.2a1 1 0 0 0 .9-1.5L14 10V4", "M8.5 4h7", "M7.5 15h9"],
  theme: ["M12 4a8 8 0 1 0 8 8a6 6 0 0 1-8-8z"],
  language: ["M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18z", "M3 12h18", "M12 3c3 2.5 3 15.500 0 18", "M12 3c-3 2.500-3 15.500 0 18"],
  keyboard: ["M3 7h18v11H3z", "M7 11h.01", "M11 11h.01", "M15 11h.01", "M8 14.500h8"],
  book: ["M5 5c3-1 5-.5 7 1c2-1.500 4-2 7-1v14c-3-1-5-.5-7 1c-2-1.500-4-2-7-1z", "M12 6v14"],
  cut: ["M3 12h6", "M15 12h6", "M11 7l2 10"],
  tool: ["M14 6a4 4 0 0 1 5-1l-2.500 2.500l1 2l2 1L22 8a4 4 0 0 1-5.500 4L9 19.500a2 2 0 0 1-3-3L13.500 9A4 4 0 0 1 14 6z"],
  warning: ["M12 4L2.500 20h19z", "M12 10v4.500", "M12 17.300h.01"],
  thought: ["M12 4a6 6 0 0 0-3.500 10.900V18h7v-3.100A6 6 0 0 0 12 4z", "M9.500 21h5"],
  download: ["M12 4v11", "M7 11l5 5 5-5", "M5 20h14"],
  clock: ["M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18z", "M12 7.500V12l3 2"],
};

/** An icon, which says nothing to a screen reader. @param {keyof typeof SHAPES} name */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  for (const shape of SHAPES[name]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", shape);
    svg.append(path);
  }
  return svg;
}

/**
 * A button with an icon and a name; the name is shown when `text` is true, else told.
 * @param {keyof typeof SHAPES} shape @param {string} label @param {(event: MouseEvent) => void} onclick
 * @param {{class?: string, text?: boolean}} [more]
 */
export function iconButton(shape, label, onclick, { class: kind = "", text = false } = {}) {
  const props = { type: "button", class: `icon-button ${kind}`, onclick };
  if (text) return h("button", props, icon(shape), h("span", { text: label }));
  return h("button", { ...props, "aria-label": label, title: label }, icon(shape));
}

/**
 * Open a menu at `anchor`: buttons that can be walked with the arrow keys.
 * @param {HTMLElement} anchor
 * @param {{label: string, about?: string, shape?: any, danger?: boolean, run: () => void}[]} items
 */
export function openMenu(anchor, items) {
  const menu = h("div", { class: "menu", role: "menu", popover: "auto", "aria-label": anchor.getAttribute("aria-label") });
  for (const item of items) {
    const run = () => {
      menu.hidePopover();
      item.run();
    };
    menu.append(
      h("button", { type: "button", role: "menuitem", class: item.danger ? "danger" : "", onclick: run },
        item.shape ? icon(item.shape) : null,
        h("span", { text: item.label }, item.about ? h("span", { class: "about", text: item.about }) : null)),
    );
  }
  menu.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const all = /** @type {HTMLElement[]} */ ([...menu.children]);
    const at = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) {
      if (event.key === "Tab") menu.hidePopover();
      return;
    }
    event.preventDefault();
    all[(to + all.length) % all.length].focus();
  });
  menu.addEventListener("toggle", (/** @type {any} */ event) => {
    anchor.setAttribute("aria-expanded", String(event.newState === "open"));
    if (event.newState === "closed") {
      const focused = menu.contains(document.activeElement);
      menu.remove();
      if (focused) anchor.focus();
    }
  });
  (anchor.closest("dialog, main, nav") ?? document.body).append(menu);
  anchor.setAttribute("aria-haspopup", "menu");
  menu.showPopover();
  const box = anchor.getBoundingClientRect();
  const size = menu.getBoundingClientRect();
  const below = box.bottom + 4 + size.height <= innerHeight;
  menu.style.top = `${Math.max(8, below ? box.bottom + 4 : box.top - 4 - size.height)}px`;
  menu.style.left = `${Math.max(8, Math.min(box.right - size.width, innerWidth - size.width - 8))}px`;
  menu.querySelector("button")?.focus();
}

/** Put `text` on the clipboard; works without the modern interface, too (plain HTTP). @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "vh", "aria-hidden": "true", tabindex: -1 });
    area.value = text;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    (focused?.closest("dialog") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

/** Offer `text` as a file. @param {string} name @param {string} type @param {string} text */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
