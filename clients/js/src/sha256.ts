// SHA-256, fed piece by piece (FIPS 180-4). Platforms have it only in one piece and asynchronously, only
// on secure origins, and React Native not at all.

const K = new Uint32Array(64);
const H = new Uint32Array(8);
for (let n = 2, count = 0; count < 64; n += 1) {
  let prime = true;
  for (let d = 2; d * d <= n; d += 1) if (n % d === 0) prime = false;
  if (!prime) continue;
  // The first 32 bits of the fractional parts of the roots of the first 64 primes.
  if (count < 8) H[count] = (Math.sqrt(n) % 1) * 2 ** 32;
  K[count] = (Math.cbrt(n) % 1) * 2 ** 32;
  count += 1;
}

export class Sha256 {
  #state = H.slice();
  #block = new Uint8Array(64);
  #words = new Uint32Array(64);
  #filled = 0;
  #length = 0;

  /** Take a text, as UTF-8; half a surrogate pair counts as U+FFFD. */
  text(text: string): this {
    for (let i = 0; i < text.length; i += 1) {
      let c = text.charCodeAt(i);
      if (c < 0x80) {
        this.#byte(c);
        continue;
      }
      if (c >= 0xd800 && c <= 0xdfff) {
        const low = text.charCodeAt(i + 1);
        if (c < 0xdc00 && low >= 0xdc00 && low <= 0xdfff) {
          c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
          i += 1;
        } else c = 0xfffd;
      }
      if (c < 0x800) this.#byte(0xc0 | (c >> 6));
      else {
        if (c < 0x10000) this.#byte(0xe0 | (c >> 12));
        else {
          this.#byte(0xf0 | (c >> 18));
          this.#byte(0x80 | ((c >> 12) & 63));
        }
        this.#byte(0x80 | ((c >> 6) & 63));
      }
      this.#byte(0x80 | (c & 63));
    }
    return this;
  }

  /** The digest so far, in hexadecimal. Nothing can be fed after it. */
  hex(): string {
    const bits = this.#length * 8;
    this.#byte(0x80);
    while (this.#filled !== 56) this.#byte(0);
    for (let shift = 56; shift >= 0; shift -= 8) this.#byte(Math.floor(bits / 2 ** shift) % 256);
    return Array.from(this.#state, (word) => word.toString(16).padStart(8, "0")).join("");
  }

  #byte(byte: number): void {
    this.#block[this.#filled++] = byte;
    this.#length += 1;
    if (this.#filled === 64) {
      this.#compress();
      this.#filled = 0;
    }
  }

  #compress(): void {
    const w = this.#words;
    const view = new DataView(this.#block.buffer);
    for (let i = 0; i < 16; i += 1) w[i] = view.getUint32(i * 4);
    for (let i = 16; i < 64; i += 1) {
      const p = w[i - 15]!;
      const q = w[i - 2]!;
      const s0 = turn(p, 7) ^ turn(p, 18) ^ (p >>> 3);
      const s1 = turn(q, 17) ^ turn(q, 19) ^ (q >>> 10);
      w[i] = w[i - 16]! + s0 + w[i - 7]! + s1;
    }
    let [a, b, c, d, e, f, g, h] = this.#state as unknown as [number, number, number, number, number, number, number, number];
    for (let i = 0; i < 64; i += 1) {
      const one = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K[i]! + w[i]!;
      const two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => (this.#state[i]! += word));
  }
}

function turn(word: number, by: number): number {
  return (word >>> by) | (word << (32 - by));
}
