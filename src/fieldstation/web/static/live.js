// Live frames of one frame server: a canvas for each module and kind, its colour scale and header, what was dropped,
// and the distribution of pulse heights. The server sends the next pictures when these are drawn: a hidden or stalled
// tab asks for none.
const PLASMA = [
  [0.05873234, 0.02333671, 0.54334018], [2.17651463, 0.23838342, 0.75396046], [-2.68946048, -7.45585114, 3.1107998],
  [6.13034835, 42.34618815, -28.51885465], [-11.10743619, -82.66631109, 60.13984767],
  [10.02306558, 71.4136177, -54.07218656], [-3.65871384, -22.93153465, 18.19190779],
];
const COLOURS = new Uint8ClampedArray(256 * 3);
for (let i = 0; i < 256; i++) for (let c = 0; c < 3; c++) {
  let value = 0;
  for (let k = 6; k >= 0; k--) value = value * (i / 255) + PLASMA[k][c];
  COLOURS[i * 3 + c] = Math.round(value * 255);
}
const VIEWS = { u1: Uint8Array, u2: Uint16Array, i2: Int16Array };

export default {
  template: `
    <section class="live" :aria-label="'Frames of ' + name">
      <div class="livebar"><h2>{{ name }}</h2>
        <span class="chip" :class="state">{{ state }}</span>
        <span class="dim">{{ told.rate ?? 0 }} frames/s · received {{ told.produced ?? 0 }} · shown {{ told.sent ?? 0 }} ·
          skipped here {{ told.dropped ?? 0 }} · lost on the way {{ told.lost ?? 0 }}</span>
        <label class="hold"><input type="checkbox" v-model="held"> Hold the colour scale</label></div>
      <p v-if="told.problem" class="problem" role="status">{{ told.problem }}</p>
      <p v-else-if="!places.length" class="empty">No frame has arrived yet.</p>
      <div class="frames">
        <figure v-for="p in places" :key="p.id">
          <figcaption><strong>Module {{ p.head.module }}</strong> {{ p.head.kind }}<span v-if="p.head.quabo !== null"> Q{{ p.head.quabo }}</span></figcaption>
          <canvas :id="p.id" :width="p.head.shape[1]" :height="p.head.shape[0]" role="img"
            :aria-label="'Newest ' + p.head.kind + ' frame of module ' + p.head.module"></canvas>
          <div class="scale"><span>{{ p.low }}</span><i aria-hidden="true"></i><span>{{ p.high }} ADC</span></div>
          <p class="dim small">{{ p.time }} UTC · frame {{ p.head.number }}</p>
          <details><summary>Header</summary><p class="small code">{{ p.head.file }}</p><pre tabindex="0">{{ p.header }}</pre></details>
        </figure>
      </div>
      <div v-if="Object.keys(told.heights || {}).length" class="heights">
        <h3>Pulse heights <span class="dim">brightest pixel of each image</span></h3>
        <figure v-for="(h, module) in told.heights" :key="module">
          <svg viewBox="0 0 300 90" preserveAspectRatio="none" role="img" :aria-label="words(h, module)">
            <rect v-for="(n, i) in h.counts" :key="i" :x="i * 300 / h.counts.length + .3" :width="Math.max(.5, 300 / h.counts.length - .6)"
              :y="90 - 88 * n / Math.max(...h.counts)" :height="88 * n / Math.max(...h.counts)"></rect></svg>
          <div class="scale"><span>{{ h.low }}</span><span>module {{ module }} · {{ h.total }} images</span><span>{{ h.high }} ADC</span></div>
        </figure>
      </div>
    </section>`,
  props: { name: String, path: String },
  data() { return { places: [], told: {}, held: false, state: "connecting", wait: 500 }; },
  mounted() { this.gone = false; this.newest = new Map(); this.limits = new Map(); this.open(); },
  unmounted() { this.gone = true; this.socket?.close(); },
  methods: {
    open() {
      const url = new URL(this.path, location.href);
      url.protocol = url.protocol.replace("http", "ws");
      this.socket = new WebSocket(url);
      this.socket.binaryType = "arraybuffer";
      this.socket.onopen = () => { this.state = "online"; this.wait = 500; };
      this.socket.onmessage = (event) => this.heard(event.data);
      this.socket.onclose = () => {
        if (this.gone) return;
        this.state = "unreachable";
        setTimeout(() => this.gone || this.open(), this.wait);
        this.wait = Math.min(this.wait * 2, 5000);
      };
    },
    heard(data) {
      if (typeof data !== "string") { this.newest.set(...this.parse(data)); return; }
      const told = JSON.parse(data);
      if (!told.drawn) { this.told = told; return; }
      const socket = this.socket;
      requestAnimationFrame(() => { this.draw(); if (socket.readyState === 1) socket.send("more"); });
    },
    parse(buffer) {
      const length = new DataView(buffer).getUint32(0, true);
      const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
      const pixels = new VIEWS[head.type](buffer.slice(4 + length));
      return [`f-${this.name}-${head.module}-${head.kind}-${head.quabo}`.replace(/[^\w-]/g, "_"), { head, pixels }];
    },
    draw() {
      for (const [id, { head, pixels }] of this.newest) {
        const place = this.place(id, head);
        const [low, high] = this.range(id, pixels);
        Object.assign(place, { head, low, high, time: this.clock(head.header), header: JSON.stringify(head.header, null, 1) });
        this.$nextTick(() => this.paint(document.getElementById(id), head, pixels, low, high));
      }
      this.newest.clear();
    },
    place(id, head) {
      let place = this.places.find((p) => p.id === id);
      if (!place) {
        this.places.push({ id, head, low: 0, high: 1, time: "", header: "" });
        this.places.sort((a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }));
        place = this.places.find((p) => p.id === id);
      }
      return place;
    },
    range(id, pixels) {
      const last = this.limits.get(id) || [];
      if (!(this.held && last.length)) {
        let low = Infinity, high = -Infinity;
        for (const value of pixels) { if (value < low) low = value; if (value > high) high = value; }
        last.push([low, high]);
        if (last.length > 10) last.shift();
        this.limits.set(id, last);
      }
      const low = Math.min(...last.map((l) => l[0])), high = Math.max(...last.map((l) => l[1]));
      return [low, high > low ? high : low + 1];
    },
    paint(canvas, head, pixels, low, high) {
      if (!canvas) return;
      const context = canvas.getContext("2d"), image = context.createImageData(head.shape[1], head.shape[0]);
      for (let i = 0; i < pixels.length; i++) {
        const c = 3 * Math.max(0, Math.min(255, Math.round(255 * (pixels[i] - low) / (high - low))));
        image.data.set([COLOURS[c], COLOURS[c + 1], COLOURS[c + 2], 255], 4 * i);
      }
      context.putImageData(image, 0, 0);
      canvas.dataset.drawn = (Number(canvas.dataset.drawn) || 0) + 1;
    },
    clock(header) {
      const part = "tv_sec" in header ? header : Object.values(header).find((p) => p && p.tv_sec) || {};
      return part.tv_sec ? new Date(part.tv_sec * 1000 + (part.tv_usec || 0) / 1000).toISOString().slice(11, 23) : "no time";
    },
    words(h, module) { return `Pulse heights of module ${module}: ${h.total} images, ${h.low} to ${h.high} ADC`; },
  },
};
