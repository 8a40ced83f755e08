//! Commands on tenants and spaces.

use cairn_proto::storage::outcome::Result as OutcomeResult;
use cairn_proto::storage::{
    CreateSpace, CreateTenant, DeleteOutcome, DeleteSpace, Outcome, SpaceNameRecord, SpaceOutcome, SpaceRecord,
    TenantRecord,
};
use cairn_proto::v1;

use crate::apply::{Applier, done};
use crate::error::{Error, Result};
use crate::partitions::IndexChange;
use crate::spaces::{self, SpaceInfo, name_key, wire_space};
use crate::store::keys::{Key, LookupDomain, SpaceRef};
use crate::store::sealing::Place;
use crate::store::{Rows, decode};

impl Applier<'_> {
    /// Makes a tenant. Its keys are durable in the keyring before anything is written that needs them.
    pub(super) fn create_tenant(&mut self, create: &CreateTenant) -> Result<Outcome> {
        let sealer = self.overlay.sealer();
        let keys = create.keys.as_ref().ok_or_else(|| Error::corruption("a tenant without keys in the log"))?;
        let key = Key::Tenant { tenant: keys.tenant_id };
        let name = sealer.open(Place::TenantName, 0, &create.sealed_name)?;
        let name =
            String::from_utf8(name).map_err(|e| Error::corruption("a tenant's name is no text").with_source(e))?;
        let name_id = sealer.lookup_id(0, LookupDomain::TenantName, &[name.as_bytes()])?;
        let name_key = Key::TenantName { name: name_id };
        if self.overlay.get(&key)?.is_some() || self.overlay.get(&name_key)?.is_some() {
            return Err(Error::already_exists("tenant", &name));
        }
        sealer
            .keyring()
            .install_tenant_keys(keys)
            .map_err(|e| Error::internal("the keys of a new tenant cannot be installed").with_source(e))?;
        let created_at_micros = self.stamp_micros();
        self.overlay.put(name_key, None, keys.tenant_id.to_be_bytes().to_vec());
        self.overlay.put_message(key, None, &TenantRecord { name, created_at_micros, next_space_id: 1, spaces: 0 });
        Ok(done())
    }

    /// Makes a space, under a number that was never used in its tenant.
    pub(super) fn create_space(&mut self, tenant: u64, create: CreateSpace) -> Result<Outcome> {
        let definition = create.space.ok_or_else(|| Error::corruption("a space without a definition in the log"))?;
        let name_key = name_key(self.overlay.sealer(), tenant, &definition.name)?;
        if self.overlay.get(&name_key)?.is_some() {
            return Err(Error::already_exists("space", &definition.name));
        }
        let space_id = self.change_tenant(tenant, |tenant, limits| {
            if tenant.spaces >= limits.spaces_max {
                let message = format!("the tenant has {} spaces, and more are not allowed", tenant.spaces);
                return Err(Error::failed_precondition("TOO_MANY_SPACES", message));
            }
            let id = tenant.next_space_id;
            tenant.next_space_id += 1;
            tenant.spaces += 1;
            Ok(id)
        })?;
        let now = self.stamp_micros();
        let record = SpaceRecord {
            id: space_id,
            definition: Some(definition),
            created_at_micros: now,
            updated_at_micros: now,
            version: 1,
        };
        let space = SpaceInfo::new(tenant, record)?;
        self.overlay.put_message(name_key, None, &SpaceNameRecord { space_id, alias: false });
        self.overlay.put_message(Key::Space(space.reference), None, &space.record);
        let outcome = SpaceOutcome { space: Some(wire_space(&space.record)) };
        Ok(Outcome { result: Some(OutcomeResult::CreateSpace(outcome)), replayed: false })
    }

    /// Deletes a space: its names at once, its rows as ranges.
    pub(super) fn delete_space(&mut self, tenant: u64, delete: &DeleteSpace) -> Result<Outcome> {
        let not_found = || Error::not_found("space", &delete.name);
        let found =
            spaces::find_name(&self.overlay, self.overlay.sealer(), tenant, &delete.name)?.ok_or_else(not_found)?;
        let reference = SpaceRef { tenant, space: found.space_id };
        let space_key = Key::Space(reference);
        let plain = self.overlay.get(&space_key)?.ok_or_else(not_found)?;
        let record: SpaceRecord = decode(&space_key, &plain)?;
        let definition = record.definition.unwrap_or_default();
        if found.alias {
            let message = format!("is an alias of the space {:?}; give the name itself", definition.name);
            return Err(Error::invalid("name", message));
        }
        self.remove_names(tenant, &definition)?;
        self.overlay.delete(space_key, Some(&plain));
        let counters = self.overlay.drop_space(reference)?;
        let build_key = Key::Build(reference);
        let build = self.overlay.get(&build_key)?;
        self.overlay.delete(build_key, build.as_deref());
        self.change_tenant(tenant, |tenant, _| {
            tenant.spaces = tenant.spaces.saturating_sub(1);
            Ok(())
        })?;
        self.pending.push((reference, IndexChange::Drop));
        self.fed.push((reference, self.index));
        let outcome = DeleteOutcome { deleted_count: counters.memories, unfinished: false };
        Ok(Outcome { result: Some(OutcomeResult::DeleteSpace(outcome)), replayed: false })
    }

    fn remove_names(&mut self, tenant: u64, definition: &v1::Space) -> Result<()> {
        for name in std::iter::once(&definition.name).chain(&definition.aliases) {
            let key = name_key(self.overlay.sealer(), tenant, name)?;
            let plain = self.overlay.get(&key)?;
            self.overlay.delete(key, plain.as_deref());
        }
        Ok(())
    }

    fn change_tenant<T>(
        &mut self,
        tenant: u64,
        change: impl FnOnce(&mut TenantRecord, &crate::options::Limits) -> Result<T>,
    ) -> Result<T> {
        let key = Key::Tenant { tenant };
        let plain = self.overlay.get(&key)?.ok_or_else(|| Error::not_found("tenant", &tenant.to_string()))?;
        let mut record: TenantRecord = decode(&key, &plain)?;
        let result = change(&mut record, self.limits)?;
        self.overlay.put_message(key, Some(&plain), &record);
        Ok(result)
    }
}
