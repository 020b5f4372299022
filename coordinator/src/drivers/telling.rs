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
    pub(super) async fn tell(&self, term: &Term, run: &RunId, subject: &Subject, about: &About, shape: &PlanShape) {
        let options = &self.0.options;
        if options.hooks.all().is_empty() {
            return;
        }
        let marks = match options.store.bookmarks().await {
            Ok(marks) => marks,
            Err(error) => {
                // Without them every hook would be told from now on only, or all of it again: rather all of it.
                tracing::warn!(upgrade = %run, error = chain(&error), "bookmarks were not read, hooks are told from the start");
                options.hooks.all().iter().map(|hook| mark(run, hook, Seq(0))).collect()
            }
        };
        for hook in options.hooks.all() {
            let from = marks.iter().find(|mark| mark.run == *run && mark.hook == hook.name).map(|mark| mark.next);
            self.spawn_telling(term, run, self.about_for_hooks(run, subject, about), shape.clone(), hook, from);
        }
    }

    /// Tells what upgrades that have ended still owe to hooks; forgets what is owed to hooks that are gone.
    pub(super) async fn tell_rest(&self, term: &Term) {
        let options = &self.0.options;
        let marks = match options.store.bookmarks().await {
            Ok(marks) => marks,
            Err(error) => return tracing::warn!(error = chain(&error), "bookmarks were not read"),
        };
        for mark in marks {
            let Some(hook) = options.hooks.all().iter().find(|hook| hook.name == mark.hook) else {
                tracing::info!(upgrade = %mark.run, hook = mark.hook, "a hook is gone that had news to be told");
                options.store.drop_bookmark(&mark.run, &mark.hook).await.ok();
                continue;
            };
            if self.running(&mark.run).is_some() {
                continue;
            }
            match self.ended(&mark.run).await {
                Ok((subject, about, shape)) => {
                    let about = self.about_for_hooks(&mark.run, &subject, &about);
                    self.spawn_telling(term, &mark.run, about, shape, hook, Some(mark.next));
                }
                // It never came to be, or cannot be read: there is nothing to tell.
                Err(error) => {
                    tracing::info!(upgrade = %mark.run, hook = mark.hook, error, "nothing can be told of this");
                    options.store.drop_bookmark(&mark.run, &mark.hook).await.ok();
                }
            }
        }
    }

    async fn ended(&self, run: &RunId) -> Result<(Subject, About, PlanShape), String> {
        let options = &self.0.options;
        let info = options.store.info(run).await.map_err(|error| chain(&error))?;
        let (about, _) = options.store.about(run).await.map_err(|error| chain(&error))?;
        let facts = engine::journal::entries::<Upgrade>(&*options.store, run, Seq(0)).await;
        let spec = facts.map_err(|error| chain(&error)).map(|facts| spec_of(&facts))?;
        let shape = spec.map(|spec| (options.plans)(&spec).shape().clone()).unwrap_or_default();
        Ok((info.subject, about, shape))
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
        let over = term.token.clone();
        // At the end of the term it is dropped where it stands: whoever leads next goes on at the bookmark.
        term.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = telling.run() => {}
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

fn mark(run: &RunId, hook: &Hook, next: Seq) -> Bookmark {
    Bookmark { run: run.clone(), hook: hook.name.clone(), next }
}
