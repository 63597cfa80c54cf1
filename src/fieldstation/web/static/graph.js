// A pipeline's graph. The table below it says the same in words.
export default {
  template: `
    <div class="graph" tabindex="0" role="region" :aria-label="label">
      <svg :viewBox="'0 0 ' + drawn.width + ' ' + drawn.height" :style="{ width: drawn.width + 'px', height: drawn.height + 'px' }" role="img" :aria-label="label">
        <defs><marker :id="mark" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z"></path></marker></defs>
        <g v-for="(a, i) in drawn.arrows" :key="'a' + i" :class="{ back: a.back }">
          <path class="arrow" :d="a.path" :marker-end="'url(#' + mark + ')'"></path>
          <text v-if="a.text" :x="a.x" :y="a.y" class="small" text-anchor="middle">{{ a.text }}</text></g>
        <g v-for="b in drawn.boxes" :key="b.name" :class="['box', b.type, { bad: b.dead > 0 }]">
          <rect :x="b.x" :y="b.y" :width="b.width" :height="b.height" rx="8"></rect>
          <text :x="b.x + 12" :y="b.y + 22" class="name">{{ short(b.name) }}</text>
          <text :x="b.x + 12" :y="b.y + 42" class="small">{{ b.type }} ×{{ b.replicas }}<tspan v-if="b.hears"> · {{ b.rate }}/s</tspan></text>
          <text :x="b.x + 12" :y="b.y + 61" class="small">{{ b.hears ? "lag " + b.lag : "from outside" }}<tspan v-if="b.redelivered"> · again {{ b.redelivered }}</tspan><tspan v-if="b.dead" class="dead"> · dead {{ b.dead }}</tspan></text></g>
      </svg>
    </div>`,
  props: { label: String, drawn: Object },
  computed: { mark() { return "tip-" + this.label.replace(/[^\w-]/g, "_"); } },
  methods: { short(name) { return name.length > 18 ? name.slice(0, 17) + "…" : name; } },
};
