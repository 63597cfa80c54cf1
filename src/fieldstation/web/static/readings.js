export default {
  template: `
    <div>
    <p v-if="!readings.length" class="empty">It has sent no readings lately.</p>
    <ul v-else class="readings">
      <li v-for="r in readings" :key="r.name"><span class="name">{{ r.name.replaceAll("_", " ") }}</span>
        <strong>{{ text(r.last) }}</strong>
        <svg v-if="r.spark.length > 1" viewBox="0 0 120 30" preserveAspectRatio="none" aria-hidden="true"><polyline :points="points(r.spark)"></polyline></svg>
        <span class="dim small">{{ ago(r.at) }}</span></li>
    </ul></div>`,
  props: { readings: Array },
  methods: {
    text(value) { return typeof value === "number" ? (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)))) : value; },
    points(values) {
      const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
      return values.map((v, i) => `${(i * 120 / (values.length - 1)).toFixed(1)},${(28 - 26 * (v - low) / span).toFixed(1)}`).join(" ");
    },
    ago(at) {
      const s = Math.max(0, Date.now() / 1000 - at);
      return s < 90 ? `${Math.round(s)} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : new Date(at * 1000).toLocaleString();
    },
  },
};
