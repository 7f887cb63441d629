package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/awslabs/soci-snapshotter/soci"
	"github.com/awslabs/soci-snapshotter/soci/store"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v3"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"
)

const (
	formatArchive   = "oci-archive"
	formatDirectory = "oci-dir"
	buildTool       = "AWS SOCI CLI v0.2" // the true program's name in what it makes
)

// sociCommand has of the true program what works without a containerd: `convert --standalone`, with its flags, words
// and refusals. create-push is the lab's own: it does what `create` and `push` do together.
func sociCommand(arguments []string) error {
	command := cli.Command{
		Name:    "soci",
		Version: version,
		Commands: []*cli.Command{
			{
				Name:      "convert",
				Usage:     "convert an OCI image to a SOCI enabled image",
				ArgsUsage: "[flags] <image_ref> <dest_ref>",
				Flags: append(builderFlags(),
					&cli.BoolFlag{Name: "standalone"},
					&cli.StringFlag{Name: "format", Value: formatArchive, Validator: validFormat}),
				Action: convert,
			},
			{
				Name:      "create-push",
				Usage:     "push a SOCI v1 index of an image to the (http) repository it is in",
				ArgsUsage: "[flags] LAYOUT REPOSITORY",
				Flags:     builderFlags(),
				Action:    createPush,
			},
		},
	}
	ctx := namespaces.WithNamespace(context.Background(), namespaces.Default)
	return command.Run(ctx, append([]string{"soci"}, arguments...))
}

func builderFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "all-platforms"},
		&cli.StringSliceFlag{Name: "platform", Aliases: []string{"p"}},
		&cli.Int64Flag{Name: "span-size", Value: 4 << 20},
		&cli.Int64Flag{Name: "min-layer-size", Value: 10 << 20},
		&cli.StringSliceFlag{Name: "optimizations"},
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}},
		&cli.StringSliceFlag{Name: "prefetch-file"},
		&cli.StringFlag{Name: "prefetch-files-json"},
	}
}

func validFormat(format string) error {
	if format == formatArchive || format == formatDirectory {
		return nil
	}
	return fmt.Errorf("unsupported output format %q: must be %q or %q", format, formatArchive, formatDirectory)
}

func convert(ctx context.Context, command *cli.Command) error {
	source, destination := command.Args().Get(0), command.Args().Get(1)
	switch {
	case source == "":
		return errors.New("source image needs to be specified")
	case destination == "":
		return errors.New("destination needs to be specified")
	case !command.Bool("standalone"):
		return errors.New("the lab's soci converts with --standalone only")
	}
	in, err := open(ctx, source, command)
	if err != nil {
		return err
	}
	defer in.close()
	wanted, err := in.platforms(ctx, command)
	if err != nil {
		return err
	}
	converted, err := in.builder.Convert(ctx, in.image, soci.ConvertWithPlatforms(wanted...))
	if err != nil {
		return err
	}
	if command.String("format") == formatDirectory {
		return in.copyTo(destination, *converted)
	}
	file, err := os.Create(destination)
	if err != nil {
		return fmt.Errorf("failed to create output tar %s: %w", destination, err)
	}
	defer file.Close()
	return archive.Export(ctx, in.contents, file, archive.WithManifest(*converted), archive.WithSkipDockerManifest())
}

func createPush(ctx context.Context, command *cli.Command) error {
	in, err := open(ctx, command.Args().Get(0), command)
	if err != nil {
		return err
	}
	defer in.close()
	wanted, err := in.platforms(ctx, command)
	if err != nil {
		return err
	}
	if len(wanted) == 0 {
		wanted = []ocispec.Platform{platforms.DefaultSpec()}
	}
	target, err := remote.NewRepository(command.Args().Get(1))
	if err != nil {
		return err
	}
	target.PlainHTTP = true
	for _, platform := range wanted {
		index, err := in.builder.Build(ctx, in.image, soci.WithPlatform(platform))
		if err != nil {
			return err
		}
		fmt.Println(index.Desc.Digest)
		if err := oras.CopyGraph(ctx, in.blobs, target, index.Desc, oras.DefaultCopyGraphOptions); err != nil {
			return err
		}
	}
	return nil
}

func (in *layout) platforms(ctx context.Context, command *cli.Command) ([]ocispec.Platform, error) {
	if command.Bool("all-platforms") {
		return images.Platforms(ctx, in.contents, in.image.Target)
	}
	var wanted []ocispec.Platform
	for _, text := range command.StringSlice("platform") {
		platform, err := platforms.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("could not parse platform %s: %w", text, err)
		}
		wanted = append(wanted, platform)
	}
	return wanted, nil
}

func builder(in *layout, scratch string, command *cli.Command) (*soci.IndexBuilder, error) {
	artifacts, err := soci.NewDB(soci.ArtifactsDbPath(scratch))
	if err != nil {
		return nil, err
	}
	var optimizations []soci.Optimization
	for _, text := range command.StringSlice("optimizations") {
		optimization, err := soci.ParseOptimization(text)
		if err != nil {
			return nil, err
		}
		optimizations = append(optimizations, optimization)
	}
	prefetched, err := prefetchedFiles(command)
	if err != nil {
		return nil, fmt.Errorf("failed to parse prefetch files: %w", err)
	}
	return soci.NewIndexBuilder(in.contents, &store.SociStore{Store: in.blobs},
		soci.WithArtifactsDb(artifacts),
		soci.WithSpanSize(command.Int64("span-size")),
		soci.WithMinLayerSize(command.Int64("min-layer-size")),
		soci.WithBuildToolIdentifier(buildTool),
		soci.WithOptimizations(optimizations),
		soci.WithForceRecreateZtocs(command.Bool("force")),
		soci.WithPrefetchPaths(prefetched))
}
