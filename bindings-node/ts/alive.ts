/** Keeps the process alive while somebody holds it, by a timer that never comes due. @internal */
export class Alive {
  private holders = 0;
  private timer: NodeJS.Timeout | undefined;

  hold(): void {
    if (this.holders++ > 0) return;
    this.timer ??= setInterval(() => {}, 0x7fffffff);
    this.timer.ref();
  }

  release(): void {
    if (--this.holders === 0) this.timer!.unref();
  }
}

/** One client's share in it, which its user may give up. @internal */
export class Hold {
  private count = 0;
  private given = true;

  constructor(private readonly alive: Alive) {}

  hold(): void {
    if (this.count++ === 0 && this.given) this.alive.hold();
  }

  release(): void {
    if (--this.count === 0 && this.given) this.alive.release();
  }

  /** From now on it keeps nothing alive. */
  unref(): void {
    if (this.given && this.count > 0) this.alive.release();
    this.given = false;
  }
}
