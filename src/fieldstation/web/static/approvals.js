// Requests that wait for a yes or a no. What somebody is typing stays while others come and go.
export default {
  template: `
    <div class="cards">
      <p v-if="!cards.length" class="empty">Nothing waits for an answer.</p>
      <article v-for="c in cards" :key="c.id" class="card" :aria-labelledby="'t' + c.id" :data-key="c.id">
        <h2 :id="'t' + c.id">{{ c.title }}</h2>
        <p><strong>{{ c.requester }}</strong> asks<span v-if="c.reason">: {{ c.reason }}</span></p>
        <p class="dim">What exactly will run</p>
        <pre tabindex="0">{{ c.runs }}</pre>
        <p v-if="c.settings" class="dim">{{ c.settings }}</p>
        <p class="dim">Digest <code>{{ c.digest.slice(0, 16) }}…</code> · until {{ clock(c.expires) }}
          <span v-if="c.needed > 1">· needs {{ c.needed }} approvals</span>
          <span v-if="c.approvers.length">· decides: {{ c.approvers.join(", ") }}</span></p>
        <ul v-if="c.answers.length"><li v-for="a in c.answers">{{ a }}</li></ul>
        <form v-if="may" @submit.prevent>
          <label>Reason <input v-model="comments[c.id]" maxlength="2000"></label>
          <div class="tools">
            <button type="button" class="yes" :disabled="busy[c.id]" @click="say(c, 'approve')">Approve<span class="unseen"> {{ c.title }}</span></button>
            <button type="button" class="no" :disabled="busy[c.id]" @click="say(c, 'deny')">Deny<span class="unseen"> {{ c.title }}</span></button>
          </div>
        </form>
        <p v-else class="dim">Your role may look, not answer.</p>
      </article>
    </div>`,
  props: { cards: Array, may: Boolean },
  data() { return { comments: {}, busy: {} }; },
  methods: {
    say(card, word) {
      // Two quick clicks are one answer; should it be refused, the buttons come back.
      this.busy[card.id] = true;
      setTimeout(() => { this.busy[card.id] = false; }, 1500);
      this.$emit("answer", { id: card.id, word, comment: this.comments[card.id] || "" });
    },
    clock(text) { return new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }); },
  },
};
