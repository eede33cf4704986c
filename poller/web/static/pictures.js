// Pictures: their addresses, why one cannot be had, and a loader that decodes them before anybody shows them.

/** @typedef {{ image: HTMLImageElement } | { status: number, after: number }} Outcome */
/** @typedef {{ number: number, taken: number | null, doubtful?: boolean, done: (outcome: Outcome) => void }} Wish */

const AT_ONCE = 8;
export const GONE = 404;
export const NOT_YET = 425;
const BUSY = 503;

/** Why there is no picture, by status: for a tile, and as a sentence. @type {Record<number, [string, string]>} */
const REASONS = {
  0: ["picture not loaded", "This picture was not loaded: the daemon does not answer."],
  [GONE]: ["picture no longer kept", "This picture is no longer kept."],
  [NOT_YET]: ["not uploaded yet", "This picture is not uploaded yet. It is asked for again."],
  502: ["picture host fails", "The host of this picture does not give it."],
  [BUSY]: ["busy, trying again", "Too many pictures are being fetched. It is asked for again."],
};

/**
 * The address of a picture. A new spool counts from 1 again, and browsers keep pictures for a year: the time keeps
 * pictures of the same number apart.
 * @param {number} number
 * @param {number | null} taken
 */
export const pictureAddress = (number, taken) => `/picture/${number}${taken === null ? "" : `?${taken}`}`;

/** @param {number} status */
export const shortReason = (status) => REASONS[status]?.[0] || `HTTP ${status}`;

/** @param {number} status */
export const reason = (status) => REASONS[status]?.[1] || `This picture cannot be shown: HTTP ${status}.`;

/**
 * Whether a picture comes without anybody's doing.
 * @param {number} status
 */
export const comesLater = (status) => status === NOT_YET || status === BUSY;

/**
 * Fetches pictures, a few at once. The newest wish is served first, and a wish that is dropped is not served at all.
 * @template K
 */
export class Loader {
  /** In the order of the wishes, the newest last. @type {Map<K, Wish>} */
  waiting = new Map();
  /** @type {Map<K, { number: number, abort: AbortController }>} */
  running = new Map();

  /**
   * Wish for a picture. A later wish of the same key takes the place of one that waits.
   * @param {K} key
   * @param {Wish} wish `doubtful`: the picture was missing before
   */
  want(key, wish) {
    if (this.running.get(key)?.number === wish.number) return;
    this.waiting.delete(key);
    this.waiting.set(key, wish);
    this.next();
  }

  /** @param {K} key */
  drop(key) {
    this.waiting.delete(key);
    this.running.get(key)?.abort.abort();
    this.running.delete(key);
    this.next();
  }

  close() {
    for (const key of [...this.waiting.keys(), ...this.running.keys()]) this.drop(key);
  }

  next() {
    if (this.running.size >= AT_ONCE) return;
    for (const [key, wish] of [...this.waiting].reverse()) {
      if (this.running.size >= AT_ONCE) return;
      if (this.running.has(key)) continue;
      this.waiting.delete(key);
      void this.serve(key, wish);
    }
  }

  /**
   * @param {K} key
   * @param {Wish} wish
   */
  async serve(key, wish) {
    const abort = new AbortController();
    this.running.set(key, { number: wish.number, abort });
    const outcome = await load(pictureAddress(wish.number, wish.taken), wish.doubtful === true, abort.signal);
    if (abort.signal.aborted) return;
    this.running.delete(key);
    wish.done(outcome);
    this.next();
  }
}

/**
 * Load and decode a picture. An image does not tell why it could not be loaded, a request does. Where a picture was
 * missing before, the request comes first, and the image then comes from the cache.
 * @param {string} address
 * @param {boolean} doubtful
 * @param {AbortSignal} signal
 * @returns {Promise<Outcome>}
 */
export async function load(address, doubtful, signal) {
  const image = doubtful ? null : await decode(address, signal);
  if (image) return { image };
  try {
    const answer = await fetch(address, { signal, credentials: "same-origin" });
    if (!answer.ok) return { status: answer.status, after: Number(answer.headers.get("Retry-After")) || 0 };
    await answer.blob();
    const second = await decode(address, signal);
    return second ? { image: second } : { status: 0, after: 0 };
  } catch {
    return { status: 0, after: 0 };
  }
}

/**
 * @param {string} address
 * @param {AbortSignal} signal
 */
async function decode(address, signal) {
  const image = new Image();
  const stop = () => image.removeAttribute("src");
  signal.addEventListener("abort", stop);
  image.alt = "";
  image.draggable = false;
  image.src = address;
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
