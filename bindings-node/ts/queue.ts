/** A first-in-first-out queue that shifts in constant time. @internal */
export class Queue<T> {
  private items: T[] = [];
  private head = 0;

  get length(): number {
    return this.items.length - this.head;
  }

  push(item: T): void {
    this.items.push(item);
  }

  shift(): T | undefined {
    if (this.head === this.items.length) return undefined;
    const item = this.items[this.head]!;
    // Not to keep alive what was taken.
    this.items[this.head++] = undefined as T;
    if (this.head > 1024 && this.head * 2 > this.items.length) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    } else if (this.head === this.items.length) {
      this.items.length = this.head = 0;
    }
    return item;
  }

  find(wanted: (item: T) => boolean): T | undefined {
    for (let at = this.head; at < this.items.length; at++) {
      if (wanted(this.items[at]!)) return this.items[at];
    }
    return undefined;
  }
}
