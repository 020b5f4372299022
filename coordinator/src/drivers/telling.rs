//! Beside the drivers: hooks are told the news of every upgrade (`hooks/telling.rs`), by the coordinator that leads. What an upgrade
//! that has ended still owes to a hook is told as well, also by a later life of this process.

use std::sync::Arc;
use std::time::Duration;

use engine::{JournalError, PlanShape, RunId, Seq, Subject};
use futures_util::future::BoxFuture;
use runtime::supervision::chain;

use super::{Drivers, Term, spec_of};
use crate::codes;
use crate::hooks::telling::{OnGivenUp, Telling};
use crate::hooks::{self, Hook, Leave};
use crate::store::{About, Bookmark};
use crate::world::Upgrade;

/// How long a driver may take to journal that a hook was given up; it is logged and counted in any case.
const WARN_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries of a store that fails.
const STORE_WAIT: Duration = Duration::from_secs(2);

impl Drivers {
    /// Before a run is created: from its first fact on, every hook is to be told.
    pub(super) async fn open_bookmarks(&self, run: &RunId) -> Result<(), JournalError> {
        for hook in self.0.options.hooks.all() {
            let mark = Bookmark { run: run.clone(), hook: hook.name.clone(), next: Seq(0) };
            self.0.options.store.keep_bookmark(&mark).await?;
        }
        Ok(())
    }

    /// Tells every hook the news of a run that is driven.
    pub(super) fn tell(&self, term: &Term, run: &RunId, subject: &Subject, about: &About, shape: &PlanShape) {
        if self.0.options.hooks.all().is_empty() {
            return;
        }
        let (drivers, owner, run) = (self.clone(), term.clone(), run.clone());
        let (about, shape) = (self.about_for_hooks(&run, subject, about), shape.clone());
        self.during(term, async move {
            let marks = drivers.bookmarks().await;
            for hook in drivers.0.options.hooks.all() {
                let from = marks.iter().find(|mark| mark.run == run && mark.hook == hook.name).map(|mark| mark.next);
                drivers.spawn_telling(&owner, &run, about.clone(), shape.clone(), hook, from);
            }
        });
    }

    /// Tells what upgrades that have ended still owe to hooks; forgets what is owed to hooks that are gone.
    pub(super) fn tell_rest(&self, term: &Term) {
        let (drivers, owner) = (self.clone(), term.clone());
        self.during(term, async move {
            for mark in drivers.bookmarks().await {
                drivers.tell_rest_of(&owner, mark).await;
            }
        });
    }

    async fn tell_rest_of(&self, term: &Term, mark: Bookmark) {
        let options = &self.0.options;
        let Some(hook) = options.hooks.all().iter().find(|hook| hook.name == mark.hook) else {
            tracing::info!(upgrade = %mark.run, hook = mark.hook, "a hook is gone that had news to be told");
            options.store.drop_bookmark(&mark.run, &mark.hook).await.ok();
            return;
        };
        if self.running(&mark.run).is_some() {
            return;
        }
        match self.ended(&mark.run).await {
            Ok(Some((subject, about, shape))) => {
                let about = self.about_for_hooks(&mark.run, &subject, &about);
                self.spawn_telling(term, &mark.run, about, shape, hook, Some(mark.next));
            }
            // It is just being created, and told by who drives it.
            Ok(None) => {}
            Err(error) => tracing::debug!(upgrade = %mark.run, hook = mark.hook, error, "nothing can be told of this"),
        }
    }

    /// All bookmarks, as soon as the store can be read.
    async fn bookmarks(&self) -> Vec<Bookmark> {
        loop {
            match self.0.options.store.bookmarks().await {
                Ok(marks) => return marks,
                Err(error) => tracing::debug!(error = chain(&error), "bookmarks were not read, trying again"),
            }
            self.0.options.clock.sleep(STORE_WAIT).await;
        }
    }

    async fn ended(&self, run: &RunId) -> Result<Option<(Subject, About, PlanShape)>, String> {
        let options = &self.0.options;
        let info = options.store.info(run).await.map_err(|error| chain(&error))?;
        if info.outcome.is_none() {
            return Ok(None);
        }
        let (about, _) = options.store.about(run).await.map_err(|error| chain(&error))?;
        let facts = engine::journal::entries::<Upgrade>(&*options.store, run, Seq(0)).await;
        let spec = facts.map_err(|error| chain(&error)).map(|facts| spec_of(&facts))?;
        let shape = spec.map(|spec| (options.plans)(&spec).shape().clone()).unwrap_or_default();
        Ok(Some((info.subject, about, shape)))
    }

    fn about_for_hooks(&self, run: &RunId, subject: &Subject, about: &About) -> hooks::About {
        hooks::About {
            upgrade: run.to_string(),
            cluster_arn: subject.to_string(),
            from_version: about.from_version.clone(),
            to_version: about.to_version.clone(),
            page_url: self.0.options.hooks.page_url().map(str::to_owned),
        }
    }

    /// Who is asked before the steps of a run.
    pub(super) fn leave(&self, run: &RunId, subject: &Subject, about: &About) -> Leave {
        Leave::new(self.0.options.hooks.clone(), self.about_for_hooks(run, subject, about))
    }

    fn spawn_telling(
        &self,
        term: &Term,
        run: &RunId,
        about: hooks::About,
        shape: PlanShape,
        hook: &Arc<Hook>,
        from: Option<Seq>,
    ) {
        let options = &self.0.options;
        let telling = Telling {
            hooks: options.hooks.clone(),
            hook: hook.clone(),
            store: options.store.clone(),
            run: run.clone(),
            about,
            shape,
            from,
            on_given_up: self.warn_of(run),
        };
        self.during(term, telling.run());
    }

    /// At the end of the term it is dropped where it stands: whoever leads next goes on at the bookmark.
    fn during(&self, term: &Term, work: impl Future<Output = ()> + Send + 'static) {
        let over = term.token.clone();
        term.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// A warning in the journal, while there is a driver that writes it.
    fn warn_of(&self, run: &RunId) -> OnGivenUp {
        let (drivers, run) = (self.clone(), run.clone());
        Arc::new(move |detail: String| -> BoxFuture<'static, ()> {
            let handle = drivers.running(&run).and_then(|running| running.handle);
            let clock = drivers.0.options.clock.clone();
            Box::pin(async move {
                if let Some(handle) = handle {
                    clock.timeout(WARN_WITHIN, handle.warn(codes::HOOK_NOT_TOLD, detail)).await.ok();
                }
            })
        })
    }
}
