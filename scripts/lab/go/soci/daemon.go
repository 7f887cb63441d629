package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	golog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/awslabs/soci-snapshotter/config"
	"github.com/awslabs/soci-snapshotter/fs"
	"github.com/awslabs/soci-snapshotter/metadata"
	"github.com/awslabs/soci-snapshotter/service"
	"github.com/awslabs/soci-snapshotter/service/keychain/dockerconfig"
	"github.com/awslabs/soci-snapshotter/ztoc"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/coreos/go-systemd/v22/activation"
	sddaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/docker/go-metrics"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
)

const defaultAddress = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"

// daemon serves containerd's snapshots API until it is told to end.
func daemon(arguments []string) error {
	flags := flag.NewFlagSet("soci-snapshotter-grpc", flag.ExitOnError)
	address := flags.String("address", defaultAddress, "socket to listen on; fd:// for the one systemd passes")
	configPath := flags.String("config", config.DefaultConfigPath, "configuration file")
	level := flags.String("log-level", "info", "trace, debug, info, warn, error, fatal or panic")
	root := flags.String("root", config.DefaultSociSnapshotterRootPath, "directory for the daemon's data")
	showVersion := flags.Bool("version", false, "print the version")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *showVersion {
		fmt.Println("soci-snapshotter-grpc version", version)
		return nil
	}
	parsed, err := logrus.ParseLevel(*level)
	if err != nil {
		return err
	}
	logrus.SetLevel(parsed)
	ctx := log.WithLogger(context.Background(), log.L)
	golog.SetOutput(log.G(ctx).WriterLevel(logrus.DebugLevel)) // go-fuse writes to the standard logger

	configuration, err := config.NewConfigFromToml(*configPath)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*root, 0o711); err != nil {
		return err
	}
	if err := service.Supported(*root); err != nil {
		return fmt.Errorf("snapshotter is not supported: %w", err)
	}
	metadataStore, err := openMetadata(*root, configuration)
	if err != nil {
		return err
	}
	snapshotter, err := service.NewSociSnapshotterService(ctx, *root, &configuration.ServiceConfig,
		service.WithCredsFuncs(dockerconfig.NewDockerConfigKeychain(ctx)),
		service.WithFilesystemOptions(fs.WithMetadataStore(metadataStore)))
	if err != nil {
		return err
	}
	if configuration.MetricsAddress != "" && !configuration.NoPrometheus {
		if err := serveMetrics(configuration.MetricsNetwork, configuration.MetricsAddress); err != nil {
			return err
		}
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(keepNamespace))
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	listener, err := listen(*address)
	if err != nil {
		return err
	}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(listener) }()
	if _, err := sddaemon.SdNotify(false, sddaemon.SdNotifyReady); err != nil {
		log.G(ctx).WithError(err).Warn("cannot notify systemd")
	}
	log.G(ctx).WithField("version", version).WithField("address", *address).Info("soci-snapshotter-grpc successfully started")

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err := <-stopped:
		return err
	case received := <-signals:
		// As in the true daemon: SIGINT unmounts, SIGTERM leaves the mounts to be restored by the next start.
		if received == syscall.SIGINT {
			return snapshotter.Close()
		}
		return nil
	}
}

// keepNamespace lets the daemon's own calls to containerd, made for a layer without a zTOC, carry the caller's
// namespace. Without it such a layer is left to containerd, which then begins to pull all layers above it, too.
func keepNamespace(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if namespace, ok := namespaces.Namespace(ctx); ok {
		ctx = namespaces.WithNamespace(ctx, namespace)
	}
	return handle(ctx, request)
}

func openMetadata(root string, configuration *config.Config) (metadata.Store, error) {
	options := &bolt.Options{
		NoFreelistSync:  true,
		InitialMmapSize: 64 << 20,
		FreelistType:    bolt.FreelistMapType,
		NoSync:          configuration.MetadataDBNoSync,
	}
	db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, options)
	if err != nil {
		return nil, err
	}
	return func(reader *io.SectionReader, toc ztoc.TOC, opts ...metadata.Option) (metadata.Reader, error) {
		return metadata.NewReader(db, reader, toc, opts...)
	}, nil
}

func serveMetrics(network, address string) error {
	if network == "" {
		network = "tcp"
	}
	if network == "unix" {
		// One that was killed has left its socket there.
		if err := os.MkdirAll(filepath.Dir(address), 0o700); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics.Handler())
	go http.Serve(listener, mux)
	return nil
}

// listen opens the socket at the address, or takes the one passed by systemd (fd://, sd_listen_fds(3)).
func listen(address string) (net.Listener, error) {
	if strings.HasPrefix(address, "fd://") {
		listeners, err := activation.Listeners()
		if err != nil {
			return nil, err
		}
		if len(listeners) == 0 || listeners[0] == nil {
			return nil, errors.New("address is fd://, but systemd has passed no socket")
		}
		return listeners[0], nil
	}
	if err := os.MkdirAll(filepath.Dir(address), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", address)
}
