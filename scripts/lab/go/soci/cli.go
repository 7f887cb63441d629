package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/awslabs/soci-snapshotter/soci"
	"github.com/awslabs/soci-snapshotter/soci/store"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

const usage = `usage: soci convert [flags] LAYOUT NEW_LAYOUT    write a copy of the image with a SOCI v2 index in it
       soci create-push [flags] LAYOUT REPOSITORY   push a SOCI v1 index of an image to the (http) repository it is in
       soci --version

LAYOUT is the directory of an OCI image layout with one image; create-push adds the index's blobs to it.
Flags: -span-size BYTES, -min-layer-size BYTES`

var platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}

func cli(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New(usage)
	}
	commands := map[string]func(context.Context, *layout, string) error{"convert": convert, "create-push": createPush}
	command, known := commands[arguments[0]]
	switch {
	case arguments[0] == "--version" || arguments[0] == "-v":
		fmt.Println("soci version", version)
		return nil
	case !known:
		return errors.New(usage)
	}
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	spanSize := flags.Int64("span-size", 4<<20, "")
	minLayerSize := flags.Int64("min-layer-size", 10<<20, "")
	flags.Usage = func() { fmt.Fprintln(os.Stderr, usage) }
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New(usage)
	}
	directory := flags.Arg(0)
	if arguments[0] == "convert" {
		directory = flags.Arg(1)
		if err := os.CopyFS(directory, os.DirFS(flags.Arg(0))); err != nil {
			return err
		}
	}
	opened, err := open(directory, *spanSize, *minLayerSize)
	if err != nil {
		return err
	}
	defer os.RemoveAll(opened.scratch)
	ctx := namespaces.WithNamespace(context.Background(), namespaces.Default)
	return command(ctx, opened, flags.Arg(1))
}

// layout is an OCI image layout with one image, opened for the library's index builder.
type layout struct {
	directory string
	image     images.Image
	blobs     *oci.Store
	builder   *soci.IndexBuilder
	scratch   string
}

func open(directory string, spanSize, minLayerSize int64) (*layout, error) {
	text, err := os.ReadFile(filepath.Join(directory, "index.json"))
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("%s holds %d images, not one", directory, len(index.Manifests))
	}
	blobs, err := oci.New(directory)
	if err != nil {
		return nil, err
	}
	var contents content.Store
	if contents, err = local.NewStore(directory); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "soci-")
	if err != nil {
		return nil, err
	}
	artifacts, err := soci.NewDB(soci.ArtifactsDbPath(scratch))
	if err != nil {
		return nil, err
	}
	builder, err := soci.NewIndexBuilder(contents, &store.SociStore{Store: blobs},
		soci.WithArtifactsDb(artifacts), soci.WithSpanSize(spanSize), soci.WithMinLayerSize(minLayerSize))
	if err != nil {
		return nil, err
	}
	image := images.Image{Name: directory, Target: index.Manifests[0]}
	return &layout{directory, image, blobs, builder, scratch}, nil
}

func convert(ctx context.Context, in *layout, directory string) error {
	converted, err := in.builder.Convert(ctx, in.image, soci.ConvertWithPlatforms(platform))
	if err != nil {
		return err
	}
	fmt.Println(converted.Digest)
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{*converted},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "index.json"), index, 0o644)
}

func createPush(ctx context.Context, in *layout, repository string) error {
	index, err := in.builder.Build(ctx, in.image, soci.WithPlatform(platform))
	if err != nil {
		return err
	}
	target, err := remote.NewRepository(repository)
	if err != nil {
		return err
	}
	target.PlainHTTP = true
	fmt.Println(index.Desc.Digest)
	return oras.CopyGraph(ctx, in.blobs, target, index.Desc, oras.DefaultCopyGraphOptions)
}
