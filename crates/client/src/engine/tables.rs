//! Names of the tables in the vault, and what their rows are.

/// The own account: one row. Scope and id empty.
pub(crate) const ACCOUNT: &str = "account";
/// Rows of the chats (MLS state), as `Chat::changes` gives them.
pub(crate) const CHAT: &str = "chat";
/// Contacts by account id.
pub(crate) const CONTACT: &str = "contact";
/// Conversations by group id.
pub(crate) const CONVERSATION: &str = "conversation";
/// Log by group: contents that the server has not acknowledged.
pub(crate) const OUTBOX: &str = "outbox";
/// Log by group: messages, each once.
pub(crate) const HISTORY: &str = "history";
/// Numbers of messages that were not shown, with their group.
pub(crate) const UNSHOWN: &str = "unshown";
/// Own messages by message id: group and number in the history.
pub(crate) const SENT: &str = "sent";
/// By group: dedupe keys of frames handled, with the position in the frame.
pub(crate) const KEYS: &str = "keys";
/// By group: (author device, message id) of what opened, with the time.
pub(crate) const OPENED: &str = "opened";
/// Log by group: frames of a later epoch, unopened.
pub(crate) const HELD: &str = "held";
/// By group: the last counter shown of each author device.
pub(crate) const COUNTER: &str = "counter";
/// By group: contents that overtook another one, by author device and counter.
pub(crate) const EARLY: &str = "early";
/// By group: counters of each author device that others were shown before, and that may still come.
pub(crate) const PASSED: &str = "passed";
/// By group: own contents on their way to the hub of another domain, by message id.
pub(crate) const GIVEN: &str = "given";
/// Invitations that wait for a GroupInfo, by group.
pub(crate) const INVITED: &str = "invited";
/// Log: what people have to hear of and were not shown yet.
pub(crate) const NOTICE: &str = "notice";
/// By group: messages that a receipt is owed for, by message id.
pub(crate) const OWED: &str = "owed";
/// Log by group: contents of a kind that this version does not show.
pub(crate) const KEPT: &str = "kept";
