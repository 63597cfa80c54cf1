export default {
  template: `
    <ul class="tiles">
      <li v-for="t in tiles" :key="t.title"><a :href="t.link" :class="{ bad: t.bad }">
        <span class="name">{{ t.title }}</span><strong>{{ t.figure }}</strong>
        <span class="text"><span v-if="t.bad" class="unseen">Needs a look: </span>{{ t.text }}</span></a></li>
    </ul>`,
  props: { tiles: Array },
};
