// @ts-check
// Drawing anew without making anew: what is there is changed to what it shall be, so that focus, selected
// text, tooltips and scroll places outlive each second's drawing.
//
// Children are matched in their order, or by `data-key`. Listeners are not carried over: they belong to
// elements that stay, or to whatever is above. What is inside an element with `data-keep` is left alone.

/** Make the children of `place` what `wanted` is. @param {Element} place @param {...any} wanted */
export function morph(place, ...wanted) {
  const nodes = /** @type {ChildNode[]} */ (wanted.filter((one) => one !== null && one !== undefined && one !== false && one !== "")
    .map((one) => (typeof one === "string" ? document.createTextNode(one) : one)));
  const keyed = new Map();
  for (const child of /** @type {HTMLElement[]} */ ([...place.children])) if (child.dataset.key) keyed.set(child.dataset.key, child);
  /** @type {ChildNode | null} */
  let at = place.firstChild;
  for (const node of nodes) {
    const key = /** @type {HTMLElement} */ (node).dataset?.key;
    const old = key ? keyed.get(key) : at;
    if (!old || !alike(old, node)) {
      if (node === at) at = at.nextSibling;
      else place.insertBefore(node, at);
      continue;
    }
    if (old === at) at = at?.nextSibling ?? null;
    else place.insertBefore(old, at);
    change(old, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** @param {any} old @param {any} node */
function alike(old, node) {
  return old !== node && old.nodeName === node.nodeName && old.nodeName !== "CANVAS" && old.dataset?.key === node.dataset?.key && old.id === node.id;
}

/** @param {any} old @param {any} node */
function change(old, node) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name, value } of node.attributes) {
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (name !== "style" && !node.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  if (old.style.cssText !== node.style.cssText) old.style.cssText = node.style.cssText;
  if (!old.hasAttribute("data-keep")) morph(old, ...node.childNodes);
}
