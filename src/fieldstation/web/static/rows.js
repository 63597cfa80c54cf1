// A table of rows that change in place. Cells are text: nothing that a row holds is ever taken for HTML.
export default {
  template: `
    <div class="rows">
      <label v-if="searchable && (rows.length > 8 || search)" class="search">Search
        <input type="search" v-model="search"></label>
      <div class="scroll" tabindex="0" role="region" :aria-label="label">
      <table>
        <caption class="unseen">{{ label }}</caption>
        <thead><tr>
          <th v-if="selectable" scope="col"><span class="unseen">Choose</span></th>
          <th v-for="c in columns" :key="c.name" scope="col" :aria-sort="order(c)">
            <button type="button" class="sort" @click="sort(c.name)">{{ c.label }}<span aria-hidden="true">{{ arrow(c) }}</span></button>
          </th>
          <th v-if="actions.length" scope="col"><span class="unseen">Actions</span></th>
        </tr></thead>
        <tbody>
          <tr v-for="row in shown" :key="row.key" :data-key="row.key">
            <td v-if="selectable" class="tick"><input type="checkbox" :value="row.key" v-model="ticked"
              :aria-label="'Choose ' + row.key" @change="$emit('ticked', ticked)"></td>
            <td v-for="c in columns" :key="c.name" :data-label="c.label" :class="[c.kind || 'text', { blank: (row[c.name] ?? '') === '' }]">
              <span v-if="c.kind === 'state'" class="chip" :class="word(row[c.name])">{{ row[c.name] }}</span>
              <time v-else-if="c.kind === 'time' && row[c.name]" :datetime="row[c.name]" :title="row[c.name]">{{ clock(row[c.name]) }}</time>
              <code v-else-if="c.kind === 'code'">{{ row[c.name] }}</code>
              <template v-else-if="c.kind !== 'time'">{{ row[c.name] }}</template>
              <small v-if="row[c.name + '_note']">{{ row[c.name + '_note'] }}</small>
            </td>
            <td v-if="actions.length" class="acts">
              <button v-for="a in actions" :key="a.name" type="button" :class="a.kind" v-show="(row.can || []).includes(a.name)"
                :aria-label="a.label + ' ' + row.key" @click="$emit('act', { action: a.name, key: row.key })">{{ a.label }}</button>
            </td>
          </tr>
          <tr v-if="!shown.length"><td class="nothing" :colspan="columns.length + 2">{{ search ? "Nothing fits the search." : nothing }}</td></tr>
        </tbody>
      </table>
      </div>
    </div>`,
  props: { columns: Array, rows: Array, label: String, nothing: String, actions: Array, selectable: Boolean, searchable: Boolean },
  data() { return { search: "", by: "", down: false, ticked: [] }; },
  computed: {
    shown() {
      const wanted = this.search.toLowerCase();
      let rows = this.rows.filter((row) => !wanted || Object.values(row).some((v) => String(v).toLowerCase().includes(wanted)));
      if (this.by) {
        const collator = new Intl.Collator(undefined, { numeric: true });
        const side = this.down ? -1 : 1;
        rows = [...rows].sort((a, b) => side * collator.compare(String(a[this.by] ?? ""), String(b[this.by] ?? "")));
      }
      return rows;
    },
  },
  watch: {
    rows(rows) {
      const left = this.ticked.filter((key) => rows.some((row) => row.key === key));
      if (left.length !== this.ticked.length) { this.ticked = left; this.$emit("ticked", left); }
    },
  },
  methods: {
    word(value) { return String(value ?? "").split(" ")[0].replace(/[^a-z_-]/gi, ""); },
    order(c) { return this.by === c.name ? (this.down ? "descending" : "ascending") : undefined; },
    arrow(c) { return this.by === c.name ? (this.down ? " ↓" : " ↑") : ""; },
    sort(name) { if (this.by === name) { this.down ? (this.by = "", this.down = false) : (this.down = true); } else { this.by = name; this.down = false; } },
    clock(text) {
      if (!text) return "";
      const moment = new Date(text), today = new Date();
      const time = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
      return moment.toDateString() === today.toDateString() ? time : moment.toLocaleDateString() + " " + time;
    },
  },
};
