//! SetAlias: an alias means one space, then another one, without a moment between. The list of a space's aliases lies in
//! its record, so that each change of it is a change of the space.

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{Outcome, SetAlias, SetAliasOutcome, SpaceNameRecord, SpaceRecord};

use crate::apply::Applier;
use crate::error::{Error, Result};
use crate::requests::limits::ALIASES_MAX;
use crate::spaces::{self, SpaceInfo, name_key};
use crate::store::keys::{Key, SpaceRef};
use crate::store::{Rows, decode};

impl Applier<'_> {
    /// Points an alias at a space, or removes it.
    pub(super) fn set_alias(&mut self, tenant: u64, set: &SetAlias) -> Result<Outcome> {
        let key = name_key(self.overlay.sealer(), tenant, &set.alias)?;
        let old_plain = self.overlay.get(&key)?;
        let old: Option<SpaceNameRecord> = old_plain.as_deref().map(|plain| decode(&key, plain)).transpose()?;
        if old.as_ref().is_some_and(|old| !old.alias) {
            return Err(Error::already_exists("space", &set.alias));
        }
        let target = if set.space.is_empty() { None } else { Some(self.space_of_own_name(tenant, &set.space)?) };
        let previous = match &old {
            None if target.is_none() => return Err(Error::not_found("alias", &set.alias)),
            None => None,
            Some(old) => spaces::find(&self.overlay, SpaceRef { tenant, space: old.space_id })?,
        };
        let previous_space = previous.as_ref().map(|space| space.definition().name.clone()).unwrap_or_default();
        if target.as_ref().map(|space| space.reference) != previous.as_ref().map(|space| space.reference) {
            if let Some(previous) = previous {
                self.change_aliases(previous, |aliases| aliases.retain(|alias| *alias != set.alias))?;
            }
            match target {
                Some(target) => {
                    let name = SpaceNameRecord { space_id: target.reference.space, alias: true };
                    self.add_alias(target, &set.alias)?;
                    self.overlay.put_message(key, old_plain.as_deref(), &name);
                }
                None => self.overlay.delete(key, old_plain.as_deref()),
            }
        }
        let outcome = SetAliasOutcome { previous_space };
        Ok(Outcome { result: Some(OutcomeResult::SetAlias(outcome)), replayed: false })
    }

    /// The space of a name that is its own: were aliases of aliases allowed, one switch would move many.
    fn space_of_own_name(&self, tenant: u64, name: &str) -> Result<SpaceInfo> {
        let space = spaces::resolve(&self.overlay, self.overlay.sealer(), tenant, name)?;
        let own = &space.definition().name;
        if own != name {
            return Err(Error::invalid("space", format!("is an alias of the space {own:?}; give the name itself")));
        }
        Ok(space)
    }

    fn add_alias(&mut self, space: SpaceInfo, alias: &str) -> Result<()> {
        let aliases = &space.definition().aliases;
        if aliases.len() >= ALIASES_MAX {
            let message = format!("the space has {} aliases, and more are not allowed", aliases.len());
            return Err(Error::failed_precondition("TOO_MANY_ALIASES", message));
        }
        self.change_aliases(space, |aliases| {
            aliases.push(alias.to_string());
            aliases.sort_unstable();
        })
    }

    fn change_aliases(&mut self, space: SpaceInfo, change: impl FnOnce(&mut Vec<String>)) -> Result<()> {
        self.change_space(space, |record| change(&mut record.definition.get_or_insert_default().aliases))
    }

    /// Rewrites a space's record as its next version.
    pub(super) fn change_space(&mut self, space: SpaceInfo, change: impl FnOnce(&mut SpaceRecord)) -> Result<()> {
        let key = Key::Space(space.reference);
        let old = self.overlay.get(&key)?;
        let mut record = space.record;
        change(&mut record);
        record.version += 1;
        record.updated_at_micros = self.stamp_micros();
        self.overlay.put_message(key, old.as_deref(), &record);
        Ok(())
    }
}
