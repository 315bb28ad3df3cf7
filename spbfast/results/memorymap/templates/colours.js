// Views: how the two bytes of a pageblock become a class, and which colour a class has.
// Bits of the bytes are those of spbfast/tiles/pageblocks.py.

const HELD = 8, PINNED = 16, TYPES = 7, ALL_FREE = 15, FREE = 0, MIXED = 5, GIGANTIC = 6, ABSENT = 7;
const TAINTED = 2;

const kind = (what) => PAGE.kindOf[what];
const gone = { name: "no memory", light: "#ffffff00", dark: "#ffffff00", hidden: true };
const faint = (name, meaning = "") => ({ name, meaning, light: "#dfe4ea", dark: "#313944" });
const free = { name: "free", light: PAGE.kinds[FREE].light, dark: PAGE.kinds[FREE].dark };
const RAMP = [["#cdd3da", "#3a424d"], ["#b5dcd3", "#235248"], ["#7cc4b2", "#2a7a68"], ["#3fa890", "#35a58c"],
  ["#0f8a70", "#4fcbb0"], ["#005c48", "#8df0da"]];
const SHARES = ["nothing free", "up to a quarter free", "up to a half", "up to three quarters", "more", "all free"];

function shareClass(room) {
  const level = room & 15;
  return level === 0 ? 0 : level === ALL_FREE ? 5 : Math.min(4, 1 + Math.floor((level - 1) / 3.75));
}

const VIEWS = {
  content: {
    name: "content", shaded: true,
    classes: PAGE.kinds.map((k, i) => ({ ...k, hidden: i === ABSENT, whole: i === GIGANTIC })),
    classify: (what) => kind(what),
  },
  label: {
    name: "label", shaded: true,
    classes: [...PAGE.labels, gone],
    classify: (what) => (what >> 5 === 7 ? PAGE.labels.length : Math.min(what >> 5, PAGE.labels.length - 1)),
  },
  free: {
    name: "free share",
    classes: [...SHARES.map((name, i) => ({ name, light: RAMP[i][0], dark: RAMP[i][1] })), gone],
    classify: (what, room) => (kind(what) === ABSENT ? 6 : kind(what) === GIGANTIC ? 0 : shareClass(room)),
  },
  stranded: {
    name: "stranded",
    classes: [
      { name: "all free, in a tainted superpageblock", light: "#b3261e", dark: "#ff6b5e" },
      { name: "half or more free there", light: "#e0693f", dark: "#e0754d" },
      { name: "some free there", light: "#f3b48f", dark: "#8f5238" },
      { name: "nothing free there", light: "#c9ced5", dark: "#47505c" },
      faint("not in a tainted superpageblock"), gone,
    ],
    classify: (what, room, tainted) => {
      const level = room & 15;
      if (kind(what) === ABSENT) return 5;
      if (!tainted) return 4;
      return level === ALL_FREE ? 0 : level > 7 ? 1 : level > 0 ? 2 : 3;
    },
  },
  pinned: {
    name: "pinned",
    classes: [
      { name: "holds pinned pages", light: "#7b1fa2", dark: "#d58cff" },
      { name: "movable", light: "#a9cfe9", dark: "#274d68" },
      { name: "kernel pages", light: "#efc3a0", dark: "#66432a" },
      free, { ...PAGE.kinds[GIGANTIC] }, gone,
    ],
    classify: (what) => {
      const k = kind(what);
      if (k === ABSENT || k === GIGANTIC) return k === ABSENT ? 5 : 4;
      if (what & PINNED) return 0;
      return k === FREE ? 3 : k === 1 ? 1 : 2;
    },
  },
  marks: {
    name: "stale marks",
    classes: [
      { name: "marked unmovable, none left", light: "#d55e00", dark: "#ff7c2a" },
      { name: "marked reclaimable, none left", light: "#009e73", dark: "#27cf9b" },
      { name: "both, none left", light: "#8a5a28", dark: "#c99a5c" },
      { name: "marked and there", light: "#b3bac3", dark: "#5a6470" },
      faint("no kernel mark"), gone,
    ],
    classify: (what, room) => {
      if (kind(what) === ABSENT) return 5;
      const marks = (room >> 4) & 5, stale = marks & ~what & 5;
      return stale === 5 ? 2 : stale === 1 ? 0 : stale === 4 ? 1 : marks ? 3 : 4;
    },
  },
};

function parse(colour) {
  const part = (i) => parseInt(colour.slice(i, i + 2), 16);
  return [part(1), part(3), part(5), colour.length > 7 ? part(7) : 255];
}

function mix(a, b, share) {
  return a.map((v, i) => (i < 3 ? Math.round(v + (b[i] - v) * share) : v));
}

const isDark = () => document.documentElement.dataset.theme === "dark";
const colourOf = (one) => (isDark() ? one.dark : one.light);

// Classes and colours of all 2^16 pairs of bytes, for tiles that are tainted and for others.
function lookUp(view) {
  const paper = parse(colourOf(free)), own = view.classes.map((c) => parse(colourOf(c)));
  const classes = [new Uint8Array(65536), new Uint8Array(65536)];
  const colours = [new Uint32Array(65536), new Uint32Array(65536)];
  for (let tainted = 0; tainted < 2; tainted++) {
    for (let both = 0; both < 65536; both++) {
      const what = both & 255, room = both >> 8, c = view.classify(what, room, tainted);
      const shaded = view.shaded && !view.classes[c].whole && !view.classes[c].hidden;
      const [r, g, b, a] = shaded ? mix(own[c], paper, (PAGE.palest * (room & 15)) / ALL_FREE) : own[c];
      classes[tainted][both] = c;
      colours[tainted][both] = ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }
  }
  return { classes, colours };
}
