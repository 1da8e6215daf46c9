// A clock that stands still until it is told to go on.

export class FakeClock {
  time = 0;
  #due = [];
  random = () => 0.5;
  now = () => this.time;

  after(delay, call) {
    const entry = { at: this.time + delay, call };
    this.#due.push(entry);
    return () => (this.#due = this.#due.filter((other) => other !== entry));
  }

  /** Let everything happen that does not need time. */
  async settle() {
    for (let i = 0; i < 50; i += 1) await Promise.resolve();
  }

  async advance(milliseconds) {
    const until = this.time + milliseconds;
    await this.settle();
    for (;;) {
      this.#due.sort((a, b) => a.at - b.at);
      if (!this.#due.length || this.#due[0].at > until) break;
      const { at, call } = this.#due.shift();
      this.time = Math.max(this.time, at); // a timer may come late
      call();
      await this.settle();
    }
    this.time = Math.max(this.time, until);
  }
}
