//! What an upgrade still owes to hooks when its process is gone.

use super::*;
use crate::hooks::Hook;
use crate::hooks::tests::{Does, Played, hook};
use crate::store::Bookmark;

fn hooks(carrier: &Arc<Played>) -> Hooks {
    let all: Vec<Hook> = vec![hook("channel", &["after_prerequisites", "finished"])];
    Hooks::over(all, carrier.clone(), None, Clock::system())
}

/// Waits until nothing is owed any more.
async fn until_paid(store: &dyn Store) {
    let paid = async {
        while !store.bookmarks().await.unwrap().is_empty() {
            Clock::system().sleep(Duration::from_millis(10)).await;
        }
    };
    Clock::system().timeout(SOON, paid).await.expect("everything is told in time");
}

#[test]
fn what_an_ended_upgrade_owes_to_a_hook_is_told_by_the_next_life_and_what_is_owed_to_nobody_is_forgotten() {
    let (file, outside) = (file(), Outside::default());
    outside.go.store(true, Ordering::SeqCst);
    // The endpoint takes the first news and does not answer; then the process is killed.
    let silent = Played::new(|_, _| Does::Hangs);
    let first = runtime();
    let id = first.block_on(async {
        let store: Arc<dyn Store> = Arc::new(open(&file, &Clock::system()).await);
        let drivers = life_with(store.clone(), &outside, "here", hooks(&silent)).await;
        let cluster: ClusterArn = CLUSTER.parse().unwrap();
        let id = drivers.start(&cluster, UpgradeSpec::new(CLUSTER, "16"), &About::default()).await.unwrap();
        status_until(&drivers, &id, |view| view.outcome.as_deref() == Some("succeeded")).await;
        let asked = async {
            while silent.calls("channel").is_empty() {
                Clock::system().sleep(Duration::from_millis(5)).await;
            }
        };
        Clock::system().timeout(SOON, asked).await.expect("the hook is told in time");
        let gone = Bookmark { run: id.clone(), hook: "gone".into(), next: Seq(0) };
        store.keep_bookmark(&gone).await.unwrap();
        id
    });
    first.shutdown_timeout(Duration::from_secs(5));

    let good = Played::new(|_, _| Does::Says(0, ""));
    runtime().block_on(async {
        let store: Arc<dyn Store> = Arc::new(open(&file, &Clock::system()).await);
        let drivers = life_with(store.clone(), &outside, "here", hooks(&good)).await;
        until_paid(&*store).await;
        let told = good.calls("channel");
        let points: Vec<&str> = told.iter().map(|notice| notice.point.as_str()).collect();
        assert_eq!(points, ["after_prerequisites", "finished"]);
        assert_eq!(told[0].delivery, silent.calls("channel")[0].delivery, "told again under the same id");
        assert!(told.iter().all(|notice| notice.upgrade == id.as_str() && notice.cluster == "orders"));
        drivers.options().stop.trigger();
        Clock::system().timeout(SOON, drivers.join()).await.expect("drivers stop in time");
    });
    let _ = std::fs::remove_file(file);
}
