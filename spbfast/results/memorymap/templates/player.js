// Time, keys and buttons: what ties maps, strips and details of one run or two together.

const SPEEDS = [2, 5, 10, 15, 30, 60], THEMES = ["auto", "light", "dark"];
const $ = (id) => document.getElementById(id);

class Player {
  constructor() {
    const lengths = PAGE.runs.map((run) => run.times.length);
    this.leader = PAGE.runs[lengths.indexOf(Math.max(...lengths))];
    this.frame = 0;
    this.speed = 15;
    this.playing = false;
    this.theme = "auto";
    this.drawn = 0;
    this.views = Object.keys(VIEWS).filter((name) => PAGE.runs.some((run) => run.views.includes(name)));
    this.view = this.views[0];
    const scales = scalesOf(PAGE.runs);
    this.sides = PAGE.runs.map((run, i) => {
      const frames = new Frames(i, run);
      const map = new TileMap(frames, run, (spb) => this.pick(spb)), detail = new Detail(map, () => this.pick(-1));
      map.box.append(detail.box);
      return { run, frames, map, detail, strip: new Strip(run, scales, (time) => this.seekTime(time)) };
    });
  }

  async start() {
    this.build();
    this.readHash();
    await Promise.all(this.sides.map(({ frames }) => frames.readSpbs()));
    this.lay();
    await this.seek(this.frame);
    document.documentElement.dataset.ready = "yes";
  }

  build() {
    for (const side of this.sides) {
      $("runs").append(side.map.box);
      $("strips").append(side.strip.box);
    }
    if (this.sides.length > 1) for (const id of ["runs", "strips"]) $(id).classList.add("two");
    document.body.classList.toggle("still", this.sides.every(({ run }) => run.times.length === 1));
    $("summary").textContent = this.sides.map(({ run, frames }) => summary(run, frames.nrPb)).join(" \u00b7 ");
    $("notes").replaceChildren(...this.sides.flatMap(({ run }) => aboutRun(run)));
    this.views.forEach((name) => {
      const button = element("button", VIEWS[name].name);
      button.type = "button";
      button.dataset.view = name;
      button.addEventListener("click", () => this.setView(name));
      $("views").append(button);
    });
    for (const speed of SPEEDS) $("speed").append(new Option(`${speed} frames/s`, speed));
    $("time").max = this.leader.times.length - 1;
    this.listen();
  }

  listen() {
    $("play").addEventListener("click", () => this.toggle());
    $("back").addEventListener("click", () => this.step(-1));
    $("forth").addEventListener("click", () => this.step(1));
    $("time").addEventListener("input", () => this.seek(Number($("time").value)));
    $("speed").addEventListener("change", () => this.setSpeed(Number($("speed").value)));
    $("theme").addEventListener("click", () => this.setTheme(THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length]));
    $("save").addEventListener("click", () => this.save());
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("resize", () => this.refresh());
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.setTheme(this.theme));
    window.addEventListener("beforeprint", () => this.show("light"));
    window.addEventListener("afterprint", () => this.setTheme(this.theme));
    this.setSpeed(this.speed);
    this.showPlaying();
    this.setTheme(this.theme);
    this.setView(this.view);
  }

  // -- state ------------------------------------------------------------------------------------

  readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (THEMES.includes(given.get("theme"))) this.setTheme(given.get("theme"));
    if (this.views.includes(given.get("view"))) this.setView(given.get("view"));
    if (given.has("t")) this.frame = nearest(this.leader.times, Number(given.get("t")));
    if (given.has("spb")) this.wanted = Number(given.get("spb"));
  }

  setTheme(theme) {
    this.theme = theme;
    const dark = theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    $("theme").textContent = theme;
    this.show(dark ? "dark" : "light");
  }

  show(tone) {
    document.documentElement.dataset.theme = tone;
    this.look = null;
    this.refresh();
  }

  setView(name) {
    this.view = name;
    this.look = null;
    for (const button of $("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === name));
    this.refresh();
  }

  setSpeed(speed) {
    this.speed = speed;
    $("speed").value = speed;
  }

  pick(spb) {
    for (const { map, detail } of this.sides) {
      map.picked = spb < map.plan.places.length ? spb : -1;
      detail.show(map.picked);
    }
    this.redraw();
  }

  // -- time -------------------------------------------------------------------------------------

  step(by) {
    this.pause();
    return this.seek(this.frame + by);
  }

  seekTime(time) {
    return this.seek(nearest(this.leader.times, time));
  }

  async seek(frame) {
    this.frame = Math.max(0, Math.min(this.leader.times.length - 1, frame));
    $("time").value = this.frame;
    this.clock();
    await Promise.all(this.sides.map((side) => side.frames.want(this.frameOf(side))));
    this.redraw();
  }

  // The frame of a side that is nearest in time: runs may have different frames.
  frameOf({ run }) {
    return run === this.leader ? this.frame : nearest(run.times, this.leader.times[this.frame]);
  }

  toggle() {
    if (this.playing) return this.pause();
    if (this.frame >= this.leader.times.length - 1) this.seek(0);
    this.playing = true;
    this.showPlaying();
    this.due = performance.now();
    requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    this.playing = false;
    this.showPlaying();
  }

  showPlaying() {
    $("play").textContent = this.playing ? "\u275a\u275a" : "\u25b6";
    $("play").setAttribute("aria-label", this.playing ? "pause" : "play");
  }

  tick(now) {
    if (!this.playing) return;
    const pace = 1000 / this.speed;
    if (now >= this.due) {
      // A slow machine shows every frame later rather than few of them.
      this.due = Math.max(this.due + pace, now - pace);
      if (this.sides.every((side) => side.frames.now(this.frameOf(side)))) this.advance();
    }
    requestAnimationFrame((next) => this.tick(next));
  }

  advance() {
    if (this.frame >= this.leader.times.length - 1) return this.pause();
    this.frame += 1;
    $("time").value = this.frame;
    this.clock();
    for (const side of this.sides) side.frames.want(this.frameOf(side));
    this.redraw();
  }

  clock() {
    const end = this.leader.times.at(-1), digits = end < 20 ? 2 : end < 200 ? 1 : 0;
    $("clock").textContent = `${this.leader.times[this.frame].toFixed(digits)} of ${end.toFixed(digits)} s`;
    $("time").setAttribute("aria-valuetext", $("clock").textContent);
  }

  // -- drawing ----------------------------------------------------------------------------------

  lay() {
    const rows = this.sides.length > 1 && window.innerWidth <= 900 ? 2 : 1;
    const most = Math.max(260, window.innerHeight * (rows > 1 ? 0.4 : 0.58));
    for (const { map, strip } of this.sides) {
      map.lay(most);
      strip.lay();
    }
    if (this.wanted !== undefined) this.pick(this.wanted);
    this.wanted = undefined;
  }

  refresh() {
    if (!this.sides[0].frames.spbs) return;
    this.lay();
    this.redraw();
  }

  redraw() {
    const view = VIEWS[this.view];
    this.look = this.look || lookUp(view);
    const counts = this.sides.map((side) => {
      const frame = this.frameOf(side), found = side.map.draw(frame, this.look, view.classes.length);
      side.strip.draw(frame);
      side.detail.draw(frame, this.look);
      return found;
    });
    if (!counts.every(Boolean)) return;
    this.legend(view, counts);
    this.drawn += 1;
  }

  legend(view, counts) {
    const run = this.sides[0].run;
    $("legend").replaceChildren(...view.classes.flatMap((c, i) => {
      if (c.hidden || !counts.some((one) => one[i])) return [];
      const item = element("li"), chip = element("span", "", "chip");
      chip.style.background = colourOf(c);
      item.title = c.meaning || "";
      item.append(chip, `${run.kindNames[c.name] || c.name} `, element("b", counts.map((one) => count(one[i])).join(" | ")));
      return [item];
    }));
  }

  save() {
    const canvas = this.sides[0].map.canvas, link = element("a");
    link.download = `map-${this.leader.times[this.frame]}s.png`;
    link.href = canvas.toDataURL("image/png");
    link.click();
  }

  // -- keys -------------------------------------------------------------------------------------

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const far = event.shiftKey ? 10 : 1, number = Number(event.key), act = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.step(-far),
      ArrowRight: () => this.step(far),
      Home: () => this.step(-Infinity),
      End: () => this.step(Infinity),
      "+": () => this.faster(1),
      "-": () => this.faster(-1),
      "[": () => this.neighbour(-1),
      "]": () => this.neighbour(1),
      Escape: () => this.pick(-1),
      t: () => $("theme").click(),
    }[event.key] || (number >= 1 && this.views[number - 1] ? () => this.setView(this.views[number - 1]) : null);
    const own = event.target.tagName;
    // What has the focus keeps its own keys.
    if (!act || own === "SELECT" || (event.key === " " && (own === "SUMMARY" || (own === "BUTTON" && event.target.id !== "play")))) return;
    event.preventDefault();
    act();
  }

  faster(by) {
    const at = SPEEDS.indexOf(this.speed);
    this.setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at + by))]);
  }

  neighbour(by) {
    const { map } = this.sides[0], nr = map.plan.places.length;
    this.pick((Math.max(map.picked, 0) + (map.picked < 0 ? 0 : by) + nr) % nr);
  }
}

function nearest(times, time) {
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low > 0 && time - times[low - 1] < times[low] - time ? low - 1 : low;
}

function summary(run, nrPb) {
  const nrSpb = run.zones.reduce((sum, zone) => sum + zone.nrSpb, 0), size = run.zones[0].perSpb * 2;
  const each = size >= 1024 ? `${size / 1024} GiB` : `${size} MiB`;
  return `${count(nrSpb)} superpageblocks of ${each}, ${count(nrPb)} pageblocks, ${run.times.length === 1 ? "one moment" : `${run.times.length} frames`}`;
}

function aboutRun(run) {
  const facts = run.facts.map(([name, value]) => `${name}: ${value}`).join("; ");
  return [element("p", `${run.title}. ${facts}${facts ? "." : ""}`), ...run.notes.map((note) => element("p", note))];
}

if (typeof DecompressionStream === "undefined") {
  document.body.prepend(element("p", "This page needs a browser of 2023 or later: Chromium 80, Firefox 113, Safari 16.4.", "broken"));
} else {
  window.spbfastMap = new Player();
  window.spbfastMap.start();
}
